"""The paper's experiments that train models, with its figures (Tables 1 and 4, Section 4.7)."""

from __future__ import annotations

from timesformer.reproduce.experiment import Claim, Experiment, Results, Row

# What stands for the paper's data in miniature: scenes that one frame shows, and motions that only their order tells.
COLUMNS = {"k400": "appearance", "ssv2": "motion"}


def _full(folder: str, name: str) -> dict[str, str]:
    return {column: f"{folder}/{column}_{name}" for column in COLUMNS}


def table1() -> Experiment:
    """The five attention schemes."""
    figures = {
        "space_only": (76.9, 36.6),
        "joint_space_time": (77.4, 58.5),
        "divided_space_time": (78.0, 59.5),
        "sparse_local_global": (75.9, 56.3),
        "axial": (73.5, 56.2),
    }
    rows = [
        Row(scheme, (f"model.attention={scheme}",), {"k400": k400, "ssv2": ssv2}, _full("table1", scheme))
        for scheme, (k400, ssv2) in figures.items()
    ]

    def gap(results: Results, column: str) -> float:
        return results.mean("divided_space_time", column) - results.mean("space_only", column)

    def lead(results: Results) -> float:
        others = [name for name in figures if name != "divided_space_time"]
        return results.mean("divided_space_time", "ssv2") - max(results.mean(name, "ssv2") for name in others)

    claims = [
        Claim("Where order decides, space-only attention is far below divided", lambda r: gap(r, "ssv2"), 20),
        Claim(
            "Where one frame suffices, space-only is close to divided (within 5 points)", lambda r: 5 - gap(r, "k400")
        ),
        Claim("Divided attention is the best of the five where order decides", lead),
    ]
    return Experiment("table1", "Attention schemes", COLUMNS, rows, claims)


def table4() -> Experiment:
    """Positions that are added to the tokens."""
    figures = {"none": (75.4, 45.8), "space": (77.8, 52.5), "space_time": (78.0, 59.5)}
    rows = [
        Row(name, (f"model.positions={name}",), {"k400": k400, "ssv2": ssv2}, _full("table4", name))
        for name, (k400, ssv2) in figures.items()
    ]
    claims = [
        Claim(
            "Where order decides, positions in space are better than none",
            lambda r: r.mean("space", "ssv2") - r.mean("none", "ssv2"),
        ),
        Claim(
            "Where order decides, positions in space and time are better than in space alone",
            lambda r: r.mean("space_time", "ssv2") - r.mean("space", "ssv2"),
        ),
    ]
    return Experiment("table4", "Positions", COLUMNS, rows, claims)


def section47() -> Experiment:
    """The order of the steps of divided attention. The paper gives differences on Kinetics-400 alone."""
    figures = {"time_space": 78.0, "space_time": 77.5, "parallel": 77.6}
    recipes = {"time_space": "table1/k400_divided_space_time"}
    rows = [
        Row(name, (f"model.order={name}",), {"k400": k400}, {"k400": recipes.get(name, f"section4.7/{name}")})
        for name, k400 in figures.items()
    ]
    claims = [
        Claim(
            "Time before space is at least as good as the other orders",
            lambda r: r.mean("time_space", "k400") - max(r.mean(name, "k400") for name in ("space_time", "parallel")),
        ),
        Claim(
            "The same where order decides, which the paper does not report",
            lambda r: r.mean("time_space", "ssv2") - max(r.mean(name, "ssv2") for name in ("space_time", "parallel")),
        ),
    ]
    return Experiment("section4.7", "Order of time and space", COLUMNS, rows, claims)


EXPERIMENTS = {"table1": table1, "table4": table4, "section4.7": section47}
