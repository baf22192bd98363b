"""A workspace: members and roles, and a log in which every change is found and located."""

from __future__ import annotations

import datetime
import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from genokit import Settings, Workspace, backends, storage
from genokit.errors import AccessDenied, ConfigError, InvalidParameters, InvalidRequest, LogDamaged, NotFound
from genokit.workspaces import access, log


@pytest.fixture
def ws(tmp_path: Path) -> Workspace:
    """A workspace in a folder, as its custodian sees it from a home of her own."""
    ws = Workspace.create(tmp_path / "lab", "anna", settings=Settings(home=tmp_path / "anna"))
    return ws.grant("ben", "analyst").grant("cleo", "modeller").grant("dan", "viewer").grant("eve", "custodian")


def seen_by(ws: Workspace, member: str) -> Workspace:
    """The same workspace, seen by another member from another home."""
    return Workspace(ws.address, member, settings=Settings(home=ws.clients.settings.home.parent / member))


def file(ws: Workspace, number: int) -> Path:
    return Path(ws.address, "log", f"{number:08}.json")


def roles(ws: Workspace) -> dict[str, str]:
    return dict(ws.members()[["member", "role"]].itertuples(index=False))


# --- members


def test_members_have_the_role_that_was_granted_last(ws):
    ws.grant("ben", "viewer").revoke("dan")
    assert roles(ws) == {"anna": "custodian", "ben": "viewer", "cleo": "modeller", "eve": "custodian"}


@pytest.mark.parametrize(("member", "role"), [("ben", "analyst"), ("cleo", "modeller"), ("dan", "viewer")])
def test_only_custodians_change_members(ws, member, role):
    with pytest.raises(AccessDenied, match=f"'granted' needs the role custodian; '{member}' is {role}") as denied:
        seen_by(ws, member).grant(member, "custodian")
    assert (denied.value.action, denied.value.resource) == ("granted", ws.address)
    with pytest.raises(AccessDenied, match="'mallory' is not a member"):
        seen_by(ws, "mallory").revoke("anna")


def test_a_workspace_keeps_a_custodian_for_good(ws):
    ws.revoke("eve")
    for change in (
        lambda: ws.revoke("anna"),
        lambda: ws.grant("anna", "viewer"),
        lambda: ws.grant("anna", "custodian", expires=datetime.date(2100, 1, 1)),
    ):
        with pytest.raises(AccessDenied, match="needs a custodian whose membership does not expire"):
            change()
    assert roles(ws)["anna"] == "custodian"


def test_two_custodians_who_revoke_each_other_do_not_both_succeed(ws):
    """The rule is checked against the entries before the new one, not against what a member has read earlier."""
    eve = seen_by(ws, "eve")
    assert roles(eve)["anna"] == "custodian"
    ws.revoke("eve")
    with pytest.raises(AccessDenied, match="'eve' is not a member"):
        eve.revoke("anna")


def test_an_expired_member_may_do_nothing_more(ws):
    ws.grant("finn", "custodian", expires=datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC))
    with pytest.raises(AccessDenied, match="the membership of 'finn' expired on 2020-01-01"):
        seen_by(ws, "finn").grant("greta", "viewer")


def test_an_expired_member_cannot_set_the_clock_back(ws):
    """An entry is not older than what a custodian wrote before it, whatever its own clock said."""
    ws.grant("finn", "custodian", expires=datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC))
    finn = seen_by(ws, "finn")
    entries = finn._log.read()
    content = json.loads(log.encoded(7, entries[-1].sha256, "finn", "granted", {"who": "finn", "role": "custodian"}))
    data = json.dumps({**content, "time": "2019-12-31T00:00:00.000000Z"}).encode()
    assert finn._log._put(data, entries, lambda *_: None)
    assert "the membership of 'finn' expired on 2020-01-01" in ws.audit().timeline()["refused"].iloc[-1]
    assert ws.members().set_index("member")["expires"]["finn"].year == 2020


def test_a_text_of_another_member_does_nothing_to_a_terminal(ws):
    frame = ws.members().assign(role="\x1b]52;c;cm0gLXJm\x07\x1b[2Jviewer")
    assert "\x1b" not in repr(frame)
    assert "viewer" in repr(frame)


@pytest.mark.parametrize("name", ["Anna", "../anna", "", "a" * 65, "anna/x", "anna\n", "anna\u0430", "\u202eanna"])
def test_a_name_that_could_lead_elsewhere_is_refused(ws, name):
    with pytest.raises(InvalidParameters, match="who: a member's name"):
        ws.grant(name, "viewer")


def test_errors_say_what_a_name_or_an_end_must_be_and_hint_at_custodians_only_where_they_help(ws, tmp_path):
    with pytest.raises(
        InvalidParameters, match=r"'my lab!' cannot be a workspace's name, which has lower-case letters"
    ):
        Workspace.create(tmp_path / "My Lab!", "anna")
    with pytest.raises(
        InvalidParameters, match=r"'Anna Smith' is not a member's name: lower-case letters.*Pass member="
    ):
        Workspace.create(tmp_path / "other", "Anna Smith")
    with pytest.raises(InvalidParameters, match=r"needs a date or a datetime.*got '2027-01-01'"):
        ws.grant("ben", "viewer", expires="2027-01-01")
    with pytest.raises(AccessDenied, match=r"^'zoe' is not a member\.$"):
        ws.revoke("zoe")


def test_an_unknown_role_is_refused_with_the_roles(ws):
    with pytest.raises(InvalidParameters, match="one of custodian, analyst, modeller, viewer; it is 'king'"):
        ws.grant("ben", "king")


def test_an_entry_by_who_had_no_right_is_kept_and_has_no_effect(ws):
    """Who can write files can skip the library's check; every reader repeats it."""
    cleo = seen_by(ws, "cleo")
    cleo._log.append("cleo", "granted", {"who": "cleo", "role": "custodian"})
    cleo._log.append("cleo", "granted", {"who": "cleo"})
    cleo._log.append("cleo", "invented", {})
    assert roles(ws)["cleo"] == "modeller"
    timeline = ws.audit().timeline()
    assert ws.audit().intact
    assert timeline["refused"].tolist()[-3:] == [
        "'granted' needs the role custodian; 'cleo' is modeller",
        "'granted' needs role: one of custodian, analyst, modeller, viewer; it is None",
        "'invented' is not a kind of entry that this version of genokit knows",
    ]
    assert ws.grant("greta", "viewer").audit().intact


# --- opening


def test_one_setting_picks_the_workspace_and_the_member(ws, tmp_path, monkeypatch):
    monkeypatch.setenv("GENOKIT_WORKSPACE", ws.address)
    monkeypatch.setenv("GENOKIT_MEMBER", "ben")
    assert (Workspace().address, Workspace().member) == (ws.address, "ben")
    assert Settings.load(start="/", environ={"GENOKIT_WORKSPACE": "s3://lab/ws"}).workspace == "s3://lab/ws"
    (tmp_path / "genokit.toml").write_text('workspace = "lab"\n')
    assert Settings.load(start=tmp_path, environ={}).workspace == str(tmp_path / "lab")


def test_without_a_workspace_the_error_says_how_to_choose_one():
    with pytest.raises(ConfigError, match="GENOKIT_WORKSPACE"):
        _ = Workspace().address


def test_a_workspace_is_created_once_and_opened_only_where_it_is(ws, tmp_path):
    with pytest.raises(InvalidRequest, match="There is a workspace at"):
        Workspace.create(ws.address, "ben")
    with pytest.raises(NotFound, match="There is no workspace at"):
        Workspace(tmp_path / "nothing", "ben").entries()


def test_the_default_member_is_the_login_name(account):
    assert Workspace("x", settings=account).member == backends.clients(account).caller.lower()


def test_a_workspace_on_s3_is_the_same(account):
    ws = Workspace.create("s3://genokit/lab", "anna", settings=account).grant("ben", "analyst")
    assert roles(Workspace("s3://genokit/lab/", "ben", settings=account)) == {"anna": "custodian", "ben": "analyst"}
    assert ws.audit().intact
    storage.delete("s3://genokit/lab/log/00000001.json", clients=ws.clients)
    assert [one.number for one in ws.audit().damage] == [1]


def test_the_card_says_who_enforces_the_rules(ws):
    card = ws._repr_html_()
    assert "anna, custodian" in card
    assert "enforced by this library alone" in card
    assert repr(ws) == f"<Workspace {ws.address} as anna>"


# --- tampering


def rewritten(ws: Workspace, number: int, **fields: object) -> None:
    content = json.loads(file(ws, number).read_text())
    file(ws, number).write_text(json.dumps({**content, **fields}, indent=1) + "\n")


def found(ws: Workspace) -> list[int]:
    return [one.number for one in ws.audit().damage]


@pytest.mark.parametrize("number", range(1, 6))
def test_a_changed_entry_is_found_at_its_number(ws, number):
    rewritten(ws, number, time="2020-01-01T00:00:00.000000Z")
    assert found(ws)[0] == number
    with pytest.raises(LogDamaged, match=rf"entry {number} was changed, or not written by 'anna'") as damaged:
        seen_by(ws, "ben").entries()
    assert damaged.value.number == number


def test_a_changed_entry_is_found_even_if_it_is_signed_anew(ws):
    """By who may write in that member's folder, as on a shared folder without permissions."""
    rewritten(ws, 3, role="custodian")
    digest = log.parsed(file(ws, 3).read_bytes(), 3).sha256
    Path(ws.address, "signed", "anna", digest).touch()
    assert found(ws) == [4]
    assert "does not follow entry 3" in ws.audit().damage[0].problem


def test_an_entry_in_another_member_s_name_is_found(ws):
    cleo = seen_by(ws, "cleo")
    entries = cleo._log.read()
    forged = log.encoded(6, entries[-1].sha256, "anna", "granted", {"who": "cleo", "role": "custodian"})
    file(ws, 6).write_bytes(forged)
    with pytest.raises(LogDamaged, match="'anna' did not sign it"):
        ws.entries()


def test_a_removed_entry_is_found_at_its_number(ws):
    file(ws, 3).unlink()
    assert found(ws)[0] == 3
    with pytest.raises(LogDamaged, match="entry 3 is missing"):
        seen_by(ws, "ben").entries()


def test_reordered_entries_are_found_at_their_numbers(ws):
    second, third = file(ws, 2).read_bytes(), file(ws, 3).read_bytes()
    file(ws, 2).write_bytes(third)
    file(ws, 3).write_bytes(second)
    assert found(ws)[:2] == [2, 3]
    assert "entries were reordered" in ws.audit().damage[0].problem


def test_an_inserted_entry_is_found(ws):
    """Those after it are moved up by one, and so say another number."""
    for number in (5, 4, 3):
        file(ws, number).rename(file(ws, number + 1))
    shutil.copy(file(ws, 2), file(ws, 3))
    assert found(ws)[0] == 3


def test_a_file_that_is_no_entry_is_found(ws):
    file(ws, 2).write_bytes(b"\xff")
    assert found(ws)[0] == 2
    shutil.copy(file(ws, 3), Path(ws.address, "log", "00000003 (conflicted copy).json"))
    assert any("conflicted copy" in one.problem for one in ws.audit().damage)


def test_a_log_that_was_cut_is_found_by_who_has_seen_its_end(ws):
    file(ws, 5).unlink()
    assert found(ws) == [5]
    with pytest.raises(LogDamaged, match="entry 5 is missing: entry 5 has been seen here before"):
        Workspace(ws.address, "anna", settings=ws.clients.settings).entries()
    assert seen_by(ws, "newcomer").audit().intact  # who sees it for the first time cannot know


def test_a_second_log_with_other_entries_is_found_by_who_has_seen_the_first(ws, tmp_path):
    shutil.copytree(ws.address, tmp_path / "fork")
    eve = Workspace(tmp_path / "fork", "eve", settings=Settings(home=tmp_path / "eve"))
    eve.grant("mallory", "custodian")
    ws.grant("greta", "viewer")
    shutil.rmtree(ws.address)
    shutil.copytree(tmp_path / "fork", ws.address)
    assert found(ws) == [6]
    assert "two forks" in ws.audit().damage[0].problem


def test_a_log_of_which_nothing_is_left_is_found_by_who_has_seen_it(ws, tmp_path):
    shutil.rmtree(Path(ws.address, "log"))
    audit = ws.audit()
    assert [(one.number, one.problem) for one in audit.damage] == [(1, "is missing: entry 5 has been seen here before")]
    assert "DAMAGED" in audit._repr_html_()
    with pytest.raises(NotFound, match="There is no workspace at"):
        Workspace(tmp_path / "nothing", "anna").audit()


def test_threads_may_share_a_workspace(ws):
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda i: (ws.grant(f"m{i}", "viewer"), ws.entries()), range(20)))
    assert [one.number for one in ws.entries()] == list(range(1, 26))


def test_what_was_read_is_not_read_again(ws):
    assert [entry.number for entry in ws.entries("granted")] == [2, 3, 4, 5]
    file(ws, 2).write_bytes(b"")
    assert len(ws.entries()) == 5


def test_rights_follow_from_the_entries_alone(ws):
    entries = ws._log.read()
    assert [reason for _, reason in access.judged(entries)] == [""] * 5
    assert access.members(entries[:3])["ben"].role == "analyst"
    assert access.members(entries[:2]).keys() == {"anna", "ben"}


def test_an_audit_shows_who_did_what_when(ws):
    audit = ws.audit()
    last = audit.timeline().iloc[-1]
    assert (last["number"], last["member"], last["kind"]) == (5, "anna", "granted")
    assert last["what"] == "who = eve, role = custodian"
    assert "VERIFIED" in audit._repr_html_()
    ws._log.append("cleo", "granted", {"who": "cleo", "role": "custodian"})
    assert "no effect: &#x27;granted&#x27; needs the role custodian" in ws.audit()._repr_html_()
    rewritten(ws, 2, role="custodian")
    assert "damaged at 2" in repr(ws.audit())
    assert "DAMAGED" in ws.audit()._repr_html_()
