"""The tables: ours and, under them, the peers, with how many times better we are than each in this run."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.figures import Figure, Report
from benchmarks.machine import Machine


def print_machine(console: Console, machine: Machine) -> None:
    """Print what it is measured on."""
    libraries = ", ".join(f"{name} {version}" for name, version in machine.libraries.items())
    load = " ".join(f"{load:.2f}" for load in machine.load)
    console.print(f"{machine.processor}, {machine.cores} cores, {machine.memory_gib} GiB, {machine.kernel}")
    console.print(f"{machine.python}, {libraries}", soft_wrap=True)
    console.print(f"load average at the start: {load}")
    console.print("Times and rates are by CPU time; met or missed is judged on the median run.")


def print_report(console: Console, report: Report) -> None:
    """Print one benchmark's figures."""
    title = f"{report.benchmark}: {report.title}"
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
    table.add_column("figure", min_width=44)
    table.add_column("unit", no_wrap=True)
    for heading in ("best", "median", "by wall", "target"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    table.add_column("we are", justify="right", no_wrap=True)
    for figure in report.figures:
        table.add_row(*_cells(report, figure))
    console.print()
    console.print(table)
    for note in report.notes:
        console.print(f"  {note}", style="dim", highlight=False, markup=False, soft_wrap=True)


def _cells(report: Report, figure: Figure) -> tuple[str, ...]:
    wall = "" if figure.median_wall is None else _number(figure.median_wall)
    target = "" if figure.target is None else ("≥ " if figure.higher_is_better else "≤ ") + f"{figure.target:g}"
    verdict = {None: "", True: "[green]met[/]", False: "[red]missed[/]"}[figure.met]
    ahead = report.ahead(figure)
    ratio = "" if ahead is None else f"{ahead:.3g} x"
    return figure.name, figure.unit, _number(figure.best), _number(figure.median), wall, target, verdict, ratio


def _number(value: float) -> str:
    """Three significant digits, never in powers of ten."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
