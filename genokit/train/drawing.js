// A sheet to draw on with mouse, pen, finger or arrow keys. The model's `ink` is what is drawn: one byte per pixel, 0 for paper.
const SIDE = 140; // pixels; on the screen twice as many
const PEN = 13; // a stroke of MNIST's width, once the drawing is scaled to 20 x 20
const STEP = 5; // of an arrow key
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const HELP = "Sheet to draw a digit on. The arrow keys draw, with Shift they move the pen; Delete clears the sheet.";

function render({ model, el }) {
  el.classList.add("gk-sheet");
  const canvas = el.appendChild(document.createElement("canvas"));
  canvas.width = canvas.height = SIDE;
  canvas.tabIndex = 0;
  canvas.title = HELP;
  canvas.setAttribute("role", "application");
  canvas.setAttribute("aria-label", HELP);
  canvas.dataset.lmSuppressShortcuts = ""; // the notebook's own arrow keys rest while the sheet has the focus
  const words = el.appendChild(document.createElement("p"));
  words.setAttribute("role", "status");
  const clear = el.appendChild(document.createElement("button"));
  clear.className = "jupyter-widgets jupyter-button widget-button";
  clear.textContent = "Clear";

  const pen = canvas.getContext("2d", { willReadFrequently: true });
  Object.assign(pen, { lineCap: "round", lineJoin: "round", lineWidth: PEN });
  let at = [SIDE / 2, SIDE / 4]; // of the pen
  let drawing = false;

  function send() {
    const pixels = pen.getImageData(0, 0, SIDE, SIDE).data;
    const ink = new Uint8Array(SIDE * SIDE).map((_, i) => pixels[4 * i + 3]);
    model.set("ink", new DataView(ink.buffer));
    model.save_changes();
  }

  function show() {
    const ink = model.get("ink");
    if (drawing) return;
    const image = pen.createImageData(SIDE, SIDE);
    for (let i = 0; i < ink.byteLength; i++) image.data[4 * i + 3] = ink.getUint8(i);
    pen.putImageData(image, 0, 0);
  }

  function stroke(to) {
    pen.beginPath();
    pen.moveTo(...at);
    pen.lineTo(...to);
    pen.stroke();
    at = to;
  }

  function place(event) {
    const box = canvas.getBoundingClientRect();
    return [((event.clientX - box.left) * SIDE) / box.width, ((event.clientY - box.top) * SIDE) / box.height];
  }

  function empty() {
    pen.clearRect(0, 0, SIDE, SIDE);
    send();
  }

  canvas.addEventListener("pointerdown", (event) => {
    if (event.button) return;
    canvas.setPointerCapture(event.pointerId);
    drawing = true;
    at = place(event);
    stroke(at);
    send();
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!drawing) return;
    for (const one of event.getCoalescedEvents?.() ?? [event]) stroke(place(one));
    send(); // while the kernel answers, the widget keeps the last state only
  });
  for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, () => (drawing = false));
  canvas.addEventListener("keydown", (event) => {
    const way = ARROWS[event.key];
    if (!way && event.key !== "Delete") return;
    event.preventDefault();
    event.stopPropagation();
    if (!way) return empty();
    const to = at.map((one, i) => Math.min(Math.max(one + STEP * way[i], 0), SIDE));
    if (event.shiftKey) at = to;
    else {
      stroke(to);
      send();
    }
  });
  clear.addEventListener("click", empty);

  const say = () => (words.textContent = model.get("words"));
  model.on("change:words", say);
  model.on("change:ink", show);
  say();
  show();
  return () => {
    model.off("change:words", say);
    model.off("change:ink", show);
  };
}

export default { render };
