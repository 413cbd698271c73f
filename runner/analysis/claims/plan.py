"""The frozen plan: what decides the verdicts, written to a file before the first run.

What a claim declares is in it as values: its smallest effect, its measure with all arguments, its config, and more.
The code is in it as one digest for each file (`source_code`). The wording of sentences, sources and reasons is no part
of it.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from runner.analysis.claims.claim import Claim, family, sweeps_of
from runner.analysis.claims.source_code import code_digests, digest, in_words
from runner.analysis.claims.trained import config_values, shown
from runner.analysis.stats.values import ALPHA
from runner.config.sweep import Sweep
from runner.errors import UserError, printable
from runner.storage import files
from runner.storage.folder import CONFIG, METRICS, read_config

PLAN, BEGUN = "plan.json", "begun.json"
"""In the folder that holds the sweeps: the plan, and under which plan each sweep was begun."""

MOST = 2**20
"""A plan of 36 claims has 40 kB."""

PARTS = {
    "sweep": "the sweep",
    "smallest_effect": "the smallest effect",
    "unit": "the unit",
    "claimed": "the claimed sign",
    "effect": "the kind of effect",
    "measure": "the measure",
    "budget": "the document's budget",
    "selection_seeds": "the list of seeds that choose learning rates",
    "tests": "the number of tests of the family",
}
"""The parts of a claim that decide its verdict, as a sentence names them."""

Plan = dict[str, Any]


def plan_of(claims: Sequence[Claim]) -> Plan:
    """What decides the verdicts of these claims, as it is now. Errors: UserError where a config is wrong."""
    sweeps = {sweep.name: config_values(sweep.resolved) for sweep in sweeps_of(claims, "full")}
    plan: Plan = {
        "rule": {"alpha": ALPHA},
        "families": sorted({tuple(sorted(family(claim.name))) for claim in claims}),
        "claims": {claim.name: _parts(claim) for claim in claims},
        "sweeps": {name: {"digest": digest(_canonical(values)), "values": values} for name, values in sweeps.items()},
        "code": code_digests(claims),
    }
    plan = json.loads(_canonical(plan))
    return {"digest": digest(_canonical(plan)), **plan}


def _parts(claim: Claim) -> dict[str, Any]:
    parts = {
        "sweep": claim.sweep_name,
        "smallest_effect": float(claim.smallest_effect),
        "unit": claim.unit,
        "claimed": claim.claimed,
        "effect": claim.effect,
        "measure": in_words(claim.measure),
        "budget": dict(claim.document.parameters),
        "selection_seeds": list(claim.selection_seeds),
        "tests": len(family(claim.name)),
    }
    return {"digest": digest(_canonical(parts)), **parts}


def freeze(claims: Sequence[Claim], path: Path) -> Plan:
    """Write the plan of these claims to a new file.

    Errors: UserError where there is a plan already. A plan that changes after the first run is no plan.
    """
    if files.exists(path):
        raise UserError(f"{path}: a plan is frozen here already; delete the file if no run was made under it")
    plan = {"frozen": _now(), **plan_of(claims)}
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write_atomically(path, json.dumps(plan, indent=1, ensure_ascii=False) + "\n")
    return plan


def read_plan(folder: Path) -> Plan | None:
    """The plan in a folder of sweeps; None where there is none.

    Errors: UserError where it is no plan, or was edited by hand.
    """
    plan = _read(folder / PLAN)
    if plan is None:
        return None
    if not _is_plan(plan):
        raise UserError(f"{folder / PLAN}: not a plan that 'bnbench claims freeze' wrote")
    rest = {name: value for name, value in plan.items() if name not in ("frozen", "digest")}
    if digest(_canonical(rest)) != plan["digest"]:
        raise UserError(f"{folder / PLAN}: was edited by hand: its content does not have its digest")
    return plan


def _is_plan(plan: Plan) -> bool:
    wanted = {"frozen": str, "digest": str, **dict.fromkeys(("claims", "sweeps", "code"), dict)}
    if not all(isinstance(plan.get(name), kind) for name, kind in wanted.items()):
        return False
    parts = [*plan["claims"].values(), *plan["sweeps"].values()]
    if not all(isinstance(part, dict) for part in parts):
        return False
    return all(isinstance(sweep.get("values"), dict) for sweep in plan["sweeps"].values())


def record_start(folder: Path, sweeps: Sequence[Sweep], plan: Plan | None) -> None:
    """Note under which plan each of the sweeps is begun that has no tables yet."""
    begun = _read(folder / BEGUN) or {}
    new = [
        sweep.name for sweep in sweeps if sweep.name not in begun and not files.exists(folder / sweep.name / METRICS)
    ]
    if new:
        entry = {"time": _now(), "plan": plan["digest"] if plan else None}
        folder.mkdir(parents=True, exist_ok=True)
        files.write_atomically(folder / BEGUN, json.dumps({**begun, **dict.fromkeys(new, entry)}, indent=1) + "\n")


def statement(folder: Path, claims: Sequence[Claim]) -> list[str]:
    """Sentences: whether the tables of these claims were made under a frozen plan, and every edit since.

    `claims` are all registered claims; those without a sweep in the folder are not mentioned.
    Errors: UserError where the plan is damaged.
    """
    plan = read_plan(folder)
    there = sorted({claim.sweep_name for claim in claims if files.exists(folder / claim.sweep_name / METRICS)})
    if plan is None:
        return [f"No plan was frozen: {folder / PLAN} does not exist. So nothing shows that the rules came first."]
    sentences = [f"Plan {plan['digest'][:12]}, frozen {plan['frozen']}."]
    begun = _read(folder / BEGUN) or {}
    under = [name for name in there if _begun_under(begun.get(name), plan)]
    if under:
        first = min(begun[name]["time"] for name in under)
        sentences.append(f"{len(under)} of {len(there)} sweeps were begun under it, the first {first}.")
    sentences += [f"Sweep {name} was not begun under this plan." for name in there if name not in under]
    for name in there:
        if trained := list(_other_config(folder / name / CONFIG, plan["sweeps"].get(name))):
            sentences.append(f"Sweep {name} was not trained as planned: {'; '.join(trained)}.")
    edited = [f"Edited: {edit}." for edit in edits(plan, plan_of(claims))]
    sentences += edited or ["Nothing that decides a verdict was edited since."]
    return [printable(sentence, keep="") for sentence in sentences]


def _begun_under(entry: object, plan: Plan) -> bool:
    """Whether a sweep's entry in `begun.json` names this plan, and a time after it was frozen."""
    if not isinstance(entry, dict) or entry.get("plan") != plan["digest"]:
        return False
    return isinstance(entry.get("time"), str) and entry["time"] >= plan["frozen"]


def _other_config(config: Path, planned: Plan | None) -> Iterator[str]:
    if planned is None:
        yield "the plan does not have it"
    else:
        yield from _changes(planned["values"], config_values(read_config(config)), "in the plan", "in the tables")


def edits(frozen: Plan, now: Plan) -> list[str]:
    """What differs between two plans, one sentence each.

    >>> edits({"claims": {"a": {"smallest_effect": 20}}}, {"claims": {"a": {"smallest_effect": 10}}})
    ['a: the smallest effect was 20 when the plan was frozen, now 10']
    """
    found = []
    for name, parts in _both(frozen, now, "claims"):
        found += [f"{name}: {edit}" for edit in _differing(parts, "the claim", PARTS)]
    for name, parts in _both(frozen, now, "sweeps"):
        found += [f"sweep {name}: {edit}" for edit in _differing([p and p["values"] for p in parts], "the sweep", {})]
    for name, (before, after) in _both(frozen, now, "code"):
        if before is None or after is None:
            found.append(f"{name}: the file is {'not in' if before is None else 'only in'} the plan")
        elif before != after:
            found.append(f"{name}: the code was changed after the plan was frozen")
    for name in ("rule", "families"):
        if frozen.get(name) != now.get(name):
            found.append(f"{name}: was {shown(frozen.get(name))} when the plan was frozen, now {shown(now.get(name))}")
    return found


def _both(frozen: Plan, now: Plan, section: str) -> list[tuple[str, list[Any]]]:
    before, after = frozen.get(section, {}), now.get(section, {})
    return [(name, [before.get(name), after.get(name)]) for name in {**before, **after}]


def _differing(parts: Sequence[Mapping[str, Any] | None], what: str, names: Mapping[str, str]) -> list[str]:
    before, after = parts
    if before is None or after is None:
        return [f"{what} is {'not in' if before is None else 'only in'} the plan"]

    def named(parts: Mapping[str, Any]) -> Mapping[str, Any]:
        return {names.get(name, name): value for name, value in parts.items() if name != "digest"}

    return list(_changes(named(before), named(after), "when the plan was frozen", "now"))


def _changes(before: Mapping[str, Any], after: Mapping[str, Any], then: str, later: str) -> Iterator[str]:
    for name in {**before, **after}:
        if before.get(name) != after.get(name):
            yield f"{name} was {shown(before.get(name))} {then}, {later} {shown(after.get(name))}"


def _read(path: Path) -> Plan | None:
    if not files.exists(path):
        return None
    if files.is_regular(path) and path.stat().st_size > MOST:
        raise UserError(f"{path}: larger than {MOST:,} bytes, so it is not a file of bnbench")
    try:
        found = json.loads(files.read_text(path))
    except (ValueError, RecursionError):
        raise UserError(f"{path}: not JSON") from None
    if not isinstance(found, dict):
        raise UserError(f"{path}: not a JSON object")
    return found


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False, default=list)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
