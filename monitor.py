# PYTHON_ARGCOMPLETE_OK
"""Compare what a version has answered with what it was trained on, and with what came true; exit 5 or 6 if it differs.

python monitor.py --log kept                             the rows since the last time that this was run
python monitor.py --log kept --since 7d                  of the last seven days
python monitor.py --log kept --labels labels.csv         and how good the answers were
python monitor.py --data new.csv --version 2             rows that version 2 scores now
python monitor.py --log kept --retrain                   on 5 or 6 also train, register, and put into Staging
python monitor.py --log kept --probation                 watch a new version; if it misbehaves, back to the one before

Exit 0: nothing to tell. 5: the rows have drifted. 6: the outcome is worse than at promotion, drifted or not. With
--probation 0: the version has stood it, or none is on probation. 7: it is not in Production any more.
"""

import argparse
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from understudy import errors, terminal
from understudy.errors import Refused, UserError
from understudy.table import TABLE
from understudy.terminal import Reply

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from understudy.monitoring.outcomes import Estimate
    from understudy.monitoring.report import WindowReport

ALARMS = ("values", "missing", "values and missing")
NOT_THERE = 7  # the exit code where the version on probation is not in Production any more
SHOWN = 20  # columns, and faults, that are printed


def options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(**terminal.explained(__doc__))
    parser.add_argument("--log", default="", help="folder of the row log that ./serve.sh --live --log writes")
    parser.add_argument("--data", default="", help="or rows that were not logged: a file, URL or database's table")
    parser.add_argument("--labels", default="", help="file, URL or database's table of ids and what came true")
    parser.add_argument(
        "--since", default="", help="time in UTC, or 7d, 12h, 30m (default: since the last run, else all rows)"
    )
    parser.add_argument("--version", default="", help="number of the version (default: the one in Production)")
    parser.add_argument("--name", default="", help=f"registered model (default: {TABLE.name})")
    parser.add_argument(
        "--retrain",
        nargs="?",
        default="",
        const=TABLE.path,
        metavar="ADDRESS",
        help=f"on 5 or 6 train on this table (default: {TABLE.path}), and put the best into Staging",
    )
    parser.add_argument(
        "--probation",
        nargs="?",
        default="",
        const=TABLE.live.server,
        metavar="SERVER",
        help=f"watch the new version in Production on the live server at this address (default: {TABLE.live.server})",
    )
    terminal.add_json(parser)
    return parser


def main() -> None:
    args = terminal.parse(options())
    terminal.answer(lambda: probation(args) if args.probation else watch(args), args.json)


def watch(args: argparse.Namespace) -> Reply:
    """Look at a window, and train again if that is asked and the window gives reason to."""
    if not args.data:
        args.log, args.labels = args.log or TABLE.live.log or "", args.labels or TABLE.live.labels or ""
    if bool(args.log) == bool(args.data):
        raise UserError("the rows come from --log or from --data, one of them", "python monitor.py --log FOLDER")
    if args.data and args.since:
        raise UserError("rows at --data have no times, so --since says nothing of them", "leave it out")
    # MLflow takes seconds to load, and --help need not wait for it.
    from understudy.registry import stages
    from understudy.tracking import connection, naming, runs

    client, name, staged = connection.connect(), args.name or TABLE.name, None
    for killed in runs.close_killed(client):
        print(f"{errors.visible(killed)}: was killed, and says so now")
    number = args.version or stages.in_stage(client, name, "production")
    report, about = monitor(client, name, number, args)
    values = {**about, **report.as_dict(), "staged": None, "refused": None}
    if not args.json:  # before what training says
        show(report, f"{name} version {number}")
        print(f"run: {about['page']}")
    if report.code and args.retrain:
        try:
            staged = retrain(client, name, args.retrain, f"{report.verdict} (monitoring run {about['run']})")
        except Refused as refused:
            refused.values = values
            raise
    following = "python train.py" if report.code and not args.retrain else None
    if staged:
        following = f"python promote.py production{naming.option(name)}"
    return Reply({**values, "staged": staged}, [], following, report.code)


def probation(args: argparse.Namespace) -> Reply:
    """Watch the version that is on probation."""
    if any((args.data, args.labels, args.since, args.version, args.retrain)):
        problem = "--probation goes with --log, --name and --json alone"
        raise UserError(problem, "python monitor.py --log FOLDER --probation")
    if TABLE.limits.probation is None:
        raise UserError("no version is on probation", "limits=Limits(probation=Probation()) in understudy/table.py")
    from understudy.probation import trials, watch
    from understudy.registry import audit, stages
    from understudy.tracking import connection

    client, name, log = connection.connect(), args.name or TABLE.name, args.log or TABLE.live.log
    audit.recover(client, name)
    trial, values = trials.current(client, name), {"name": name, "version": None, "before": None, "since": None}
    if isinstance(trial, trials.NoTrial):
        outcome, lines = trial.outcome, [errors.visible(trial.why)]
    else:
        outcome = watch.watch(client, name, trial, TABLE.limits, args.probation, Path(log) if log else None)
        since, lines = trial.since.isoformat(timespec="seconds"), []
        values |= {"version": trial.version, "before": trial.before, "since": since}
    current = stages.aliases(client, name).get("production")
    code = 0 if outcome in (None, trials.STOOD) else NOT_THERE
    return Reply({**values, "production": current, "outcome": outcome, "exit": code}, lines, code=code)


def monitor(
    client: "MlflowClient", name: str, number: str, args: argparse.Namespace
) -> tuple["WindowReport", dict[str, Any]]:
    """What is found in the window, and what names it: version, run, number of the window, page."""
    from understudy.monitoring import labels, log_rows, record, report, window
    from understudy.registry import registered
    from understudy.tracking import connection

    now = datetime.now(UTC)
    version = registered.get_version(client, name, number)
    before, course = window.reference(client, version), record.Course(client, version)
    known = labels.read(args.labels, before.model.table) if args.labels else None
    since, source = window.moment(args.since, now) if args.since else None, args.data or args.log
    if args.data:
        rows = window.from_address(args.data, number, before.model, now)
        answers = iter([rows.answers])
    else:
        begin = since or course.end_of_last(source)
        rows = window.from_log(Path(args.log), number, before.model.table, begin)
        answers = log_rows.answers(Path(args.log), since)
    joined = labels.join(known, answers, number, rows.since) if known else None
    with course.window(source, rows) as run:
        found = report.compare(before, rows, known, joined)
        run.write(found)
    about = {"name": name, "version": number, "run": run.run_id, "window": run.number}
    experiment_id = client.get_run(run.run_id).info.experiment_id
    return found, {**about, "page": connection.page(f"experiments/{experiment_id}/runs/{run.run_id}")}


def show(report: "WindowReport", called: str) -> None:
    """Print what is found, for people."""
    from understudy.figures.cards import shown_time

    window, scores = report.window, report.scores
    begin = f"after {shown_time(window.since)}" if window.since else "from the first one"
    rows = f"{window.accepted:,} rows {begin} to {shown_time(window.until)}, {window.refused:,} refused"
    lines = [errors.visible(f"{called}: {rows}")]
    sample = "" if len(window.probabilities) == window.accepted else f"{len(window.probabilities):,} of them "
    kept = "rows that it was trained on" if report.is_trained_on else "held-out rows, since training kept no others"
    lines += [f"{sample}beside the {report.compared_with:,} {kept}:", *_table(report)]
    lines += [f"scores: {scores.test}, p {_p(scores.p)}, mean {scores.mean:.3f}, before {scores.mean_before:.3f}"]
    for form, of in report.together.items():
        tells = f" by {errors.visible(', '.join(of.columns))}" if of.columns else ""
        area = "" if of.auc is None else f" at AUC {of.auc:.3f}{tells}, p {_p(of.p)}"
        lines += [f"all {form} columns together: {of.test}{area}"]
    lines += [errors.visible(f"refused: {fault} ({rows:,})") for fault, rows in window.faults.most_common(SHOWN)]
    for shadow in window.shadows:
        agreement = f"{shadow.agreement:.1%} of {shadow.rows - shadow.refused:,} labels agree"
        lines += [f"shadow version {shadow.version}: {agreement}, {shadow.refused:,} rows refused"]
    lines += _outcome(report) if report.outcome else _estimate(report.estimate)
    for line in lines:
        print(line)
    colour = errors.RED if report.code else errors.GREEN
    print(f"{errors.painted('verdict:', colour)} {errors.visible(report.verdict)}")


def _table(report: "WindowReport") -> list[str]:
    """The lines of the columns' comparison: all of few columns, of many those with an alarm and those that follow."""
    import pandas as pd

    table = report.table()
    if len(table) > SHOWN:
        table = table.sort_values(["alarm", "p"], ascending=[False, True])[:SHOWN]
    printed = {
        "column": table["column"],
        "test": table["test"],
        "p": table["p"].map(_p),
        "psi": table["psi"].map(_p),
        "missing before": table["missing_before"].map("{:.1%}".format),
        "missing": table["missing"].map("{:.1%}".format),
        "alarm": [_alarm(*tests) for tests in table[["p", "missing_p", "level"]].itertuples(index=False)],
    }
    return terminal.table(pd.DataFrame(printed).to_dict("records"), dict.fromkeys(ALARMS, errors.RED))


def _alarm(p: float | None, missing_p: float | None, level: float) -> str:
    """Which tests of a column are below their level: of its values, of its missing cells."""
    tests = {"values": p, "missing": missing_p}
    return " and ".join(name for name, value in tests.items() if value is not None and value < level)


def _p(value: float | None) -> str:
    """A figure for people; nothing for none."""
    from understudy.figures import cards

    return "" if value is None or value != value else cards.number(value)


def _outcome(report: "WindowReport") -> Iterator[str]:
    """What the labels say."""
    from understudy.figures import cards
    from understudy.monitoring.outcomes import FEWEST_OF_A_LABEL, FEWEST_ROWS

    known, joined, outcome = report.known, report.joined, report.outcome
    assert known is not None and joined is not None and outcome is not None  # noqa: S101, PT018 - there are labels
    positive = (
        f"{outcome.positive:,} of them {errors.visible(report.positive)}, {outcome.answered_positive:,} answered so"
    )
    have = f"labels: {outcome.rows:,} answered rows have one, {positive}; {joined.unlabelled:,} have none"
    yield errors.visible(have)
    counts = {
        "late (answered before this window)": joined.late,
        "repeated": known.repeated,
        "contradicting": known.contradicting,
        "contradicting and left out": known.undecided,
        "empty": known.missing,
        "of rows that other versions answered": joined.elsewhere,
        "of rows without an answer in the log, or after --since": joined.unknown,
        "of rows that were answered more than once": joined.again,
    }
    yield from (f"labels: {count:,} {what}" for what, count in counts.items() if count)
    if not outcome.is_decided:
        needed = f"{FEWEST_ROWS}, and {FEWEST_OF_A_LABEL} of each label"
        yield f"outcome: too few labels to tell, at least {needed} are needed"
        return
    columns = {"now": outcome.metrics, "at promotion": outcome.before, "change": outcome.change}
    rows = [
        {"outcome": metric, **{name: cards.interval(of[metric]) for name, of in columns.items()}}
        | {"result": "worse" if metric in outcome.worse else ""}
        for metric in outcome.metrics
    ]
    yield from terminal.table(rows, {"worse": errors.RED})
    yield "note: only rows whose truth came to light count; a refused loan never shows whether it would have been paid"


def _estimate(estimate: "Estimate") -> Iterator[str]:
    """What accuracy and AUC may be where there are no labels."""
    for name, value in estimate.expected.items():
        before, true = estimate.expected_before[name], estimate.true_before[name]
        yield f"estimate: {name} {value:.3f}; of the held-out rows it says {before:.3f}, where {true:.3f} came true"
    yield "note: an estimate holds if probabilities are calibrated and rows mean for their label what they meant before"


def retrain(client: "MlflowClient", name: str, address: str, why: str) -> str | None:
    """Train on the table, register the best, and put it into Staging; returns its number, None for nothing new.

    Raises:
        Refused: The gate does not let it into Staging.
    """
    import promote
    import train
    from understudy.reading import table_rows
    from understudy.registry import registered, registration
    from understudy.tracking import family_runs, provenance
    from understudy.training import selection

    given = [] if address == TABLE.path else ["--data", address]
    newest = registered.get_version(client, name, None)
    digest = TABLE.digest(table_rows.read(TABLE, provenance.table_path(TABLE.path, address if given else None)))
    if newest.tags.get(provenance.DATA_DIGEST) == digest:
        print(f"not trained again: the table is the one that version {newest.version} was trained on ({digest})")
        return None
    trained = train.train(train.options().parse_args(given), None)
    print(*trained.lines, sep="\n")
    best = selection.best_family(
        family_runs.families(client, family_runs.get_batch(client, TABLE, trained.values["batch"]))
    )
    version, _ = registration.register(client, best, TABLE, name)
    print(f"{name} version {version.version} registered: {errors.visible(family_runs.family_name(best))}")
    asked = ["staging", "--version", str(version.version), "--reason", why]
    print(*promote.promote(client, name, promote.options().parse_args(asked)).lines, sep="\n")
    return str(version.version)


if __name__ == "__main__":
    errors.run(main)
