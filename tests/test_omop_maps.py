"""Public concept maps: files in the shape they were published in, with a few rows made up here."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pytest
from athena import download
from mimic3_rows import mimic3, one_patient
from transformed import run

from genokit import Manifest, Settings
from genokit.errors import InvalidSource, NotFound
from genokit.omop.etl import public_maps
from genokit.omop.etl.vocabulary import Vocabulary, own, vocabulary

OURS = Path(__file__).parents[1] / "data_manifests"

OHDSI = (
    "concept_name,source_concept_id,source_vocabulary_id,source_domain_id,source_concept_class_id,standard_concept,"
    "concept_code,valid_start_date,valid_end_date,invalid_reason,target_concept_id,relationship_id"
)


def row(code: str, concept: object, domain: str, name: str = "a name") -> str:
    """A row of OHDSI's."""
    return f'"{name}",2000050001,mimiciv_x,{domain},X,,"{code}",1970-01-01,2099-12-31,,{concept},Maps to'


def written(folder: Path, **files: list[str]) -> Path:
    """Maps in a folder: OHDSI's header is put before rows, MIT's files bring their own."""
    folder.mkdir(exist_ok=True)
    for stem, rows in files.items():
        lines = [OHDSI, *rows] if stem.startswith("gcpt") else rows
        (folder / f"{stem}.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def meaning(known: Vocabulary, name: str, code: str) -> list[tuple]:
    con = duckdb.connect()
    known.load(con)
    return con.execute(
        "SELECT concept_id, domain_id FROM vocab.source_to_concept WHERE source_vocabulary_id = ? AND source_code = ?",
        [name, code],
    ).fetchall()


def test_maps_add_what_the_own_lists_lack(tmp_path):
    known = vocabulary(
        maps=written(
            tmp_path,
            gcpt_meas_lab_loinc_mod=[row("51555", 3022192, "Measurement")],
            gcpt_drug_route=[row("in the  ear", 4023156, "Route")],
            output_label_to_concept=["label,item_id,concept_id", "Drain out,40999,3037537"],
        )
    )
    assert meaning(known, "mimic3 items", "51555") == [(3022192, "Measurement")]
    assert meaning(known, "mimic3 items", "40999") == [(3037537, "Measurement")]
    assert meaning(known, "mimic3 routes", "IN THE  EAR") == [(4023156, "Route")]
    assert meaning(Vocabulary(), "mimic3 items", "51555") == []
    assert repr(known) == f"<Vocabulary of genokit's own {len(own())} codes with 3 of the public maps>"
    assert "gcpt_drug_route" in known._repr_html_()


def test_maps_are_among_the_files_that_decide(tmp_path):
    folder = written(tmp_path, gcpt_drug_route=[row("ear", 4023156, "Route")])
    assert folder / "gcpt_drug_route.csv" in vocabulary(maps=folder).paths
    assert set(Vocabulary().paths) < set(vocabulary(maps=folder).paths)


def test_own_lists_come_first_then_ohdsi_then_mit(tmp_path):
    known = vocabulary(
        maps=written(
            tmp_path,
            gcpt_outputevents=[row("226559", 1, "Measurement"), row("227488", 36308083, "Measurement")],
            output_label_to_concept=["label,item_id,concept_id", "Foley,226559,2", "GU,227488,3"],
        )
    )
    [(foley, _)] = meaning(known, "mimic3 items", "226559")
    assert foley == next(concept for name, code, concept, *_ in own() if (name, code) == ("mimic3 items", "226559"))
    assert meaning(known, "mimic3 items", "227488") == [(36308083, "Measurement")]


def test_a_row_without_a_standard_concept_says_nothing(tmp_path):
    rows = [row(str(51900 + n), concept, "Measurement") for n, concept in enumerate(["", "NA", 0, 2000000010])]
    rows.append(row("", 5, "Measurement"))
    files = public_maps.find([written(tmp_path, gcpt_meas_lab_loinc_mod=rows)])
    assert public_maps.read(files, ()) == []


def test_rows_of_other_domains_are_left_out(tmp_path):
    """A chart row goes to MEASUREMENT or OBSERVATION, so that the concept of a device has no place there."""
    chart = [row("224087", 45768171, "Device"), row("223758", 4127294, "Observation")]
    values = [row("AF (Atrial Fibrillation)", 313217, "Condition"), row("LBBB", 45883893, "Meas Value")]
    files = public_maps.find(
        [written(tmp_path, gcpt_meas_chartevents_main_mod=chart, gcpt_meas_chartevents_value=values)]
    )
    assert [(code, domain) for _, code, _, domain, _ in public_maps.read(files, ())] == [
        ("223758", "Observation"),
        ("LBBB", "Meas Value"),
    ]


def test_a_concept_has_one_domain_and_one_name_wherever_it_stands(tmp_path):
    urine = next(one for one in own() if one[3] == "Measurement")
    rows = [row("51901", urine[2], "Measurement", "other words"), row("51902", 7, "Measurement", "first")]
    outputs = [row("51903", 7, "Measurement", "second")]
    files = public_maps.find([written(tmp_path, gcpt_meas_lab_loinc_mod=rows, gcpt_outputevents=outputs)])
    read = {code: (domain, words) for _, code, _, domain, words in public_maps.read(files, own())}
    assert read == {
        "51901": ("Measurement", urine[4]),
        "51902": ("Measurement", "first"),
        "51903": ("Measurement", "first"),
    }


def test_of_two_meanings_of_a_code_in_a_file_the_first_stands(tmp_path):
    rows = [row("Acetaminophen (Liquid)", 1, "Drug"), row("ACETAMINOPHEN (LIQUID) ", 2, "Drug")]
    known = vocabulary(maps=written(tmp_path, gcpt_drug_ndc=rows))
    assert meaning(known, "mimic3 drugs", "ACETAMINOPHEN (LIQUID)") == [(1, "Drug")]


def test_a_download_corrects_the_maps(tmp_path):
    """The old creatinine leads to its successor; a code without a successor, or of another domain, means nothing."""
    rows = [row("51901", 3016723, "Measurement"), row("51902", 9, "Measurement"), row("51903", 320128, "Measurement")]
    rows.append(row("51904", 123456, "Measurement"))
    folder = download(tmp_path)
    known = vocabulary(folder, maps=written(tmp_path / "maps", gcpt_meas_lab_loinc_mod=rows))
    found = {code: meaning(known, "mimic3 items", code) for code in ("51901", "51902", "51903", "51904")}
    assert found == {"51901": [(9999999, "Measurement")], "51902": [], "51903": [], "51904": [(123456, "Measurement")]}
    assert repr(known) == f"<Vocabulary in {folder} with 1 of the public maps>"


def test_every_concept_of_a_map_is_in_the_concept_table_once(tmp_path):
    con = duckdb.connect()
    vocabulary(maps=written(tmp_path, gcpt_micro_organism=[row("80999", 42, "Observation", "A. example")])).load(con)
    found = con.execute("SELECT concept_name, domain_id FROM vocab.concept WHERE concept_id = 42").fetchall()
    assert found == [("A. example", "Observation")]
    assert con.execute("SELECT concept_id FROM vocab.concept GROUP BY ALL HAVING COUNT(*) > 1").fetchall() == []


PRESCRIBED = [
    {"subject_id": 1, "hadm_id": 100, "startdate": "2150-01-02 00:00:00", "drug_type": "MAIN"} | one
    for one in (
        {"drug": "Insulin", "prod_strength": "100 Units / mL", "ndc": "0"},
        {"drug": "Insulin", "prod_strength": "100 Units / mL", "ndc": None},
        {"drug": "Lorazepam", "prod_strength": None, "ndc": None},
        {"drug": "Insulin", "prod_strength": "100 Units / mL", "ndc": "00338004904"},
        {"drug": "Nobody's", "prod_strength": "1 mg", "ndc": None},
    )
]


def test_a_prescription_without_a_known_ndc_goes_by_its_name_and_strength(tmp_path):
    drugs = [row("insulin 100 Units / mL", 1596977, "Drug"), row("LORAZEPAM ", 791967, "Drug")]
    known = vocabulary(download(tmp_path), maps=written(tmp_path / "maps", gcpt_drug_ndc=drugs))
    con = mimic3(**one_patient(prescriptions=PRESCRIBED))
    run(con, known, only="drug_exposure")
    found = con.execute("SELECT drug_concept_id FROM cdm.drug_exposure ORDER BY drug_exposure_id").fetchall()
    assert found == [(1596977,), (1596977,), (791967,), (40220357,), (0,)]


def test_a_billing_group_has_a_concept(tmp_path):
    groups = [row("SEPTICEMIA W MCC", 38001560, "Observation")]
    known = vocabulary(maps=written(tmp_path, gcpt_obs_drgcodes=groups))
    drg = {"subject_id": 1, "hadm_id": 100, "drg_type": "MS", "drg_code": "871"}
    con = mimic3(**one_patient(drgcodes=[drg | {"description": "Septicemia w MCC"}, drg | {"description": "?"}]))
    run(con, known, only="observation")
    found = con.execute(
        "SELECT observation_concept_id FROM cdm.observation WHERE observation_source_value LIKE 'MS DRG%' ORDER BY ALL"
    ).fetchall()
    assert found == [(0,), (38001560,)]


@pytest.mark.parametrize(
    ("rows", "complaint"),
    [
        ([row("51901", "3022192x", "Measurement")], r"line 2: '51901' or '3022192x' is not an id"),
        ([row("51901", -5, "Measurement")], r"line 2: '51901' or '-5' is not an id"),
        ([row("Sodium", 3, "Measurement")], r"line 2: 'SODIUM' or '3' is not an id"),
        ([row("51901", 3, "Measurement"), "a,b"], r"line 3: it needs concept_code, .*, and a value for each name"),
        ([row("51901", 3, "Measurement") + ",,,,"], r"line 2: it needs concept_code, .*, and a value for each name"),
        (['"51901"x,3'], "is not CSV in UTF-8"),
    ],
)
def test_a_broken_map_is_named_with_its_line(tmp_path, rows, complaint):
    known = vocabulary(maps=written(tmp_path, gcpt_meas_lab_loinc_mod=rows))
    with pytest.raises(InvalidSource, match=rf"^gcpt_meas_lab_loinc_mod\.csv.*{complaint}"):
        known.load(duckdb.connect())


def test_a_map_that_lacks_a_column_or_is_no_text_is_named(tmp_path):
    known = vocabulary(maps=written(tmp_path, output_label_to_concept=["label,itemid,concept_id", "Foley,1,2"]))
    with pytest.raises(InvalidSource, match="line 2: it needs item_id, concept_id, label, and"):
        known.load(duckdb.connect())
    (tmp_path / "output_label_to_concept.csv").write_bytes(b"label,item_id,concept_id\n\xff,1,2\n")
    with pytest.raises(InvalidSource, match="is not CSV in UTF-8"):
        known.load(duckdb.connect())


def test_a_place_without_maps_is_refused(tmp_path):
    with pytest.raises(NotFound, match="There is no folder"):
        vocabulary(maps=tmp_path / "nowhere")
    (tmp_path / "gcpt_drug_rout.csv").touch()
    with pytest.raises(NotFound, match=r"has none of the public concept maps.*Did you mean 'gcpt_drug_route'\?"):
        vocabulary(maps=[tmp_path])


def test_maps_come_from_fetched_data_sets_and_several_places(tmp_path):
    written(tmp_path / "one", gcpt_drug_ndc=[row("Insulin", 1, "Drug")])
    written(tmp_path / "two", gcpt_drug_ndc=[row("Insulin", 2, "Drug")], gcpt_meas_unit=[row("furlong", 3, "Unit")])
    Manifest.freeze(tmp_path / "one", "small-maps", licence="CC0-1.0")
    known = vocabulary(maps=[Manifest(tmp_path / "one").fetch(progress=False), tmp_path / "two"])
    assert list(known.maps) == ["gcpt_meas_unit", "gcpt_drug_ndc"]
    assert meaning(known, "mimic3 drugs", "INSULIN") == [(1, "Drug")]
    (tmp_path / "three").mkdir()
    (tmp_path / "three" / "a.csv").write_text("a\n")
    digits = Manifest.freeze(tmp_path / "three", "digits").fetch(progress=False)
    with pytest.raises(NotFound, match="The data set 'digits' has none"):
        vocabulary(maps=digits)


def test_the_manifests_name_every_map_that_is_read_and_nothing_else():
    named = [
        Path(resource.path).stem
        for name in ("ohdsi-mimic-maps", "mimic-omop-maps")
        for resource in Manifest(name, settings=Settings(manifests=OURS)).package.resources
        if resource.path != "LICENSE"
    ]
    assert named == list(public_maps.FILES)
