"""Comparing runs: the table's numbers and the plots' points are those of the run folders, worked by hand."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest
from matplotlib.image import imread

from avsync_cli.errors import ConfigError
from training.reproduction.compare import compare, rows_of_bars, rows_of_sizes, runs_of_ratios
from training.reproduction.plots import plot_bars, plot_ratios, plot_sizes
from training.reproduction.published import PUBLISHED
from training.reproduction.runs import find_folders, gather_rows, read_run

ROOT = Path(__file__).parents[1]
NAMES = ("5", "7", "9", "11", "13", "15", "clip")


def write_run(folder, *, label="MTD", seed=1, k5=60.0, parameters=13_281_000, steps=800, observed=(), **more):
    """A run folder as training and `evaluate` leave it; K=7 and on are one percent more each."""
    folder.mkdir(parents=True)
    experiment = more.get("experiment", "Table 1")
    config = {"name": more.get("name", folder.name), "experiment": experiment, "label": label, "seed": seed}
    percent = {name: k5 + place for place, name in enumerate(NAMES)}
    groups = [
        {"group": "all", "clips": 157, "percent": percent},
        {"group": "lab", "clips": 9, "percent": {"5": 11.0, "clip": 100.0}},
    ]
    metrics = {
        "name": config["name"],
        "network": more.get("network", "mtdvocalist-edge"),
        "method": label,
        "seed": seed,
        "parameters": parameters,
        "steps": steps // 2,  # the best weights may be of any step
        "protocol": groups,
        "split": "val",
        "limits": {"max_frames": more.get("max_frames"), "clips": None},
        "origin": {"commit": "c", "cache_manifest_sha256": more.get("data", "d")},
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "metrics.json").write_text(json.dumps(metrics))
    (folder / "log.csv").write_text(f"step,total\n1,0.7\n{steps},0.6\n")
    with (folder / "val.csv").open("w", newline="") as file:
        columns = ("step", "f1", "observed/MTD", "observed/Last-MTD", "observed/FitNets")
        writer = csv.writer(file)
        writer.writerow(columns if observed else columns[:2])
        writer.writerows((step, 0.5, *losses) for step, losses in observed)
        if not observed:
            writer.writerow((100, 0.5))
    return folder


def run(paths, output, **options):
    options = {"runs": Path("runs"), "command": "compare this"} | options
    return compare(paths, output, **options)


def cells(text, label):
    """The cells of the table's row of a label."""
    (line,) = [line for line in text.splitlines() if line.startswith(f"| {label} |")]
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_seeds_of_a_label_are_one_row_with_mean_and_spread(tmp_path):
    folders = [write_run(tmp_path / f"mtd{seed}", seed=seed, k5=k5) for seed, k5 in ((1, 60), (2, 63))]
    folders.append(write_run(tmp_path / "bce", label="BCE", k5=50.5))
    text = run(folders, tmp_path / "out")
    assert (tmp_path / "out" / "comparison.md").read_text() == text
    assert "Made by `compare this`" in text
    # The standard deviation of two values 3 apart is 3 / sqrt(2).
    figures = [f"{61.5 + place:.2f} ± 2.12" for place in range(7)]
    assert cells(text, "MTD") == [
        "MTD", "Table 1", "mtdvocalist-edge", "13.281 M", "1, 2", "800", *figures, "50.00 ± 0.00"
    ]  # fmt: skip
    assert cells(text, "BCE")[4:] == ["1", "800", *(f"{50.5 + place:.2f}" for place in range(7)), "50.00"]
    assert text.index("| MTD |") < text.index("| BCE |")


def test_a_run_without_a_label_is_called_by_its_name(tmp_path):
    assert cells(run([write_run(tmp_path / "first-try", label="")], tmp_path / "out"), "first-try")


def test_another_group_and_figures_that_are_not_there(tmp_path):
    text = run([write_run(tmp_path / "mtd")], tmp_path / "out", group="lab")
    assert cells(text, "MTD")[6:] == ["11.00", "-", "-", "-", "-", "-", "100.00", "50.00"]


def test_plots_without_data_are_left_out_and_the_text_says_why(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "fig2.png").write_bytes(b"of an earlier comparison")
    text = run([write_run(tmp_path / "mtd")], out)
    assert [path.name for path in out.iterdir()] == ["comparison.md"]
    assert "Left out: all rows have networks of one size." in text
    assert "Left out: fewer than two rows have an accuracy at K=5." in text
    assert "Left out: no run watched these losses" in text


def test_plots_with_data_are_pictures_and_the_text_shows_them(tmp_path):
    watched = [(100, (4.0, 2.0, 8.0)), (200, (3.0, 1.0, 8.0))]
    folders = [
        write_run(tmp_path / "mtd", observed=watched),
        write_run(tmp_path / "teacher", label="VocaLiST", parameters=80_107_000, k5=70),
    ]
    text = run(folders, tmp_path / "out")
    for name in ("fig2.png", "fig3.png", "fig4.png"):
        picture = imread(tmp_path / "out" / name)
        assert picture.std() > 0.05
        assert f"]({name})" in text
    assert "Left out" not in text


def read_all(*folders):
    return [read_run(folder, group="all") for folder in folders]


def test_sizes_are_drawn_where_the_rows_are(tmp_path):
    runs = read_all(
        write_run(tmp_path / "a", label="small", parameters=13_000_000, k5=60),
        write_run(tmp_path / "b", label="big", parameters=80_000_000, k5=70),
    )
    panels = plot_sizes(gather_rows(runs)).figure.axes
    assert [panel.get_title().split()[0] for panel in panels] == [f"K={name}" for name in NAMES[:-1]]
    for place, panel in enumerate(panels):
        points = {line.get_label(): tuple(line.get_xydata()[0]) for line in panel.lines}
        assert points == {"small": (13.0, 60.0 + place), "big": (80.0, 70.0 + place)}


def test_bars_are_as_high_as_the_rows_and_named_apart(tmp_path):
    first = write_run(tmp_path / "a", label="BCE", k5=41)
    again = write_run(tmp_path / "b", label="BCE", k5=43)
    config = json.loads((again / "config.json").read_text()) | {"experiment": "Table 2"}
    (again / "config.json").write_text(json.dumps(config))
    rows = gather_rows(read_all(first, again, write_run(tmp_path / "c", label="F4", k5=47)))
    (panel,) = plot_bars(rows).figure.axes
    assert [bar.get_height() for bar in panel.patches] == [41, 43, 47]
    assert [tick.get_text() for tick in panel.get_xticklabels()] == ["BCE (Table 1)", "BCE (Table 2)", "F4"]


def test_each_plot_shows_its_own_experiment(tmp_path):
    watched = [(100, (3.0, 2.0, 8.0)), (200, (4.0, 1.0, 8.0))]
    named = [
        ("Table 1", "BCE"),
        ("Table 1", "MTD"),
        ("Table 2", "BCE"),
        ("Fig. 2", "VocaLiST"),
        ("Fig. 2", "SyncNet"),
        ("Fig. 3", "F4"),
        ("Fig. 3", "UW-25D"),
        ("Fig. 4", "MTD"),
    ]
    runs = read_all(
        *(
            write_run(tmp_path / str(place), experiment=experiment, label=label, observed=watched)
            for place, (experiment, label) in enumerate(named)
        )
    )

    def names(members):
        return [(member.experiment, member.label) for member in members]

    rows = gather_rows(runs)
    assert names(rows_of_sizes(rows)) == [named[3], named[4], named[1]]
    assert names(rows_of_bars(rows)) == [named[0], named[5], named[6]]
    assert names(runs_of_ratios(runs)) == [named[7]]
    # Without rows of its own, or with one alone, a plot shows all.
    assert rows_of_bars(rows[:5]) == rows[:5]
    assert rows_of_sizes(rows[2:4]) == rows[2:4]
    assert runs_of_ratios(runs[:7]) == runs[:7]


def test_ratios_are_relative_to_the_highest(tmp_path):
    watched = [(100, (3.0, 2.0, 8.0)), (200, (4.0, 1.0, 8.0)), (300, (1.0, 0.5, 2.0))]
    (panel,) = plot_ratios(read_all(write_run(tmp_path / "a", observed=watched))).figure.axes
    curves = {line.get_label(): line.get_xydata().T.tolist() for line in panel.lines}
    assert curves == {
        "MTD": [[100, 200, 300], [0.75, 1, 0.25]],
        "Last-MTD": [[100, 200, 300], [1, 0.5, 0.25]],
        "FitNets": [[100, 200, 300], [1, 1, 0.25]],
    }


def test_a_configuration_stands_for_the_runs_of_its_name(tmp_path):
    runs = tmp_path / "runs"
    ours = [write_run(runs / f"seed{seed}", seed=seed, name="table1-mtd") for seed in (1, 2)]
    write_run(runs / "other", name="table1-mtd-more")
    config = tmp_path / "mtd.toml"
    config.write_text('name = "table1-mtd"\n')
    assert find_folders([config, ours[0]], runs=runs) == ours  # and each folder once
    assert "| 1, 2 |" in run([config], tmp_path / "out", runs=runs)
    config.write_text('name = "nothing"\n')
    with pytest.raises(ConfigError, match=r"mtd\.toml: .*runs holds no run of 'nothing'"):
        find_folders([config], runs=runs)


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("config.json", None, "has no config.json; is it a run folder"),
        ("metrics.json", None, "has no metrics.json; make it with `python -m training evaluate"),
        ("metrics.json", "{", "metrics.json: Expecting property name"),
        ("metrics.json", "[]", "metrics.json: must hold a table"),
        ("metrics.json", '{"protocol": 3}', "holds no figures of the protocol"),
        ("metrics.json", '{"protocol": []}', "has no group 'all'"),
        ("config.json", '{"label": 5}', "'label' is missing or no str"),
        ("log.csv", None, "log.csv: No such file"),
        ("log.csv", "step,total\n", "log.csv: not a table of steps"),
        ("val.csv", "step,observed/MTD\nx,1\n", "val.csv: not a table of validations"),
        ("val.csv", "step,observed/MTD\n1,nan\n", "observed/MTD is not finite"),
    ],
)
def test_a_broken_run_folder_is_one_clear_line(tmp_path, file, content, words):
    folder = write_run(tmp_path / "mtd")
    (folder / file).unlink()
    if content is not None:
        (folder / file).write_text(content)
    with pytest.raises(ConfigError) as caught:
        read_run(folder, group="all")
    assert words in str(caught.value)
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_runs_that_do_not_belong_together_are_refused(tmp_path):
    first = write_run(tmp_path / "a")
    with pytest.raises(ConfigError, match=r"b: steps 900, but 800 in .*a; runs of one label"):
        gather_rows(read_all(first, write_run(tmp_path / "b", seed=2, steps=900)))
    with pytest.raises(ConfigError, match="c: MTD has two runs of one seed"):
        gather_rows(read_all(first, write_run(tmp_path / "c")))


def test_what_keeps_rows_from_being_comparable_is_said(tmp_path):
    first = write_run(tmp_path / "a")
    assert "Beware" not in run([first], tmp_path / "out")
    other = write_run(tmp_path / "b", label="BCE", steps=900, data="e")
    text = run([first, other], tmp_path / "out")
    assert "Beware: the runs were measured on different data." in text
    assert "Beware: the runs took different numbers of steps." in text
    assert "splits" not in text
    assert "numbers of clips" not in text
    cut = write_run(tmp_path / "c", label="KD", max_frames=250)
    assert "different splits or parts of the clips" in run([first, cut], tmp_path / "out")


def test_published_figures_are_those_of_the_text(tmp_path):
    """Their differences are also given in words (abstract and section 4.2)."""
    k5 = {entry.label: entry.percent["5"] for entry in PUBLISHED}
    gaps = {name: round(k5["MTD"] - k5[name], 2) for name in k5}
    said = {"SyncNet": 15.65, "Perfect Match": 3.35, "KD": 10.58, "RKD": 5.39, "MiniLM*": 5.85}
    assert gaps.items() >= (said | {"FitNets": 0.64}).items()
    assert all(sorted(row.percent.values()) == list(row.percent.values()) for row in PUBLISHED)
    folder = write_run(tmp_path / "ours", label="ours")
    assert "Published" not in run([folder], tmp_path / "out")
    text = run([folder], tmp_path / "out", published=True)
    source = "Fig. 2 (arXiv:2210.15563), in numbers in its authors' logs"
    figures = ["92.0", "95.5", "97.7", "98.8", "99.3", "99.6"]
    assert cells(text, "AVST") == ["AVST", source, "42.4 M", *figures]
    assert text.index("| ours |") < text.index("## Published figures") < text.index("| AVST |")


def with_published(folder, **percent):
    """The figures that `evaluate` counts by the published rule."""
    metrics = json.loads((folder / "metrics.json").read_text())
    metrics["protocol"][0]["published"] = {name.removeprefix("k"): value for name, value in percent.items()}
    (folder / "metrics.json").write_text(json.dumps(metrics))
    return folder


def test_the_paper_and_ours_are_compared_by_the_published_rule_alone(tmp_path):
    folders = [
        with_published(write_run(tmp_path / f"mtd{seed}", seed=seed, k5=12.0), k5=k5, k15=99.0)
        for seed, k5 in ((1, 90.0), (2, 93.0))
    ]
    folders.append(write_run(tmp_path / "kd", label="KD"))  # measured before the rule was counted
    text = run(folders, tmp_path / "out", published=True).partition("## The paper and ours")[2]
    lines = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if "MTD" in line
    ]
    assert lines == [
        ["Table 1", "MTD", "paper", "91.45", "95.75", "97.99", "98.95", "99.46", "99.68", ""],
        ["Table 1", "MTD", "ours", "91.50 ± 2.12", "-", "-", "-", "-", "99.00 ± 0.00", "2"],
        ["Table 1", "MTD", "difference", "+0.05", "-", "-", "-", "-", "-0.68", "2"],
    ]
    assert "KD" not in text


def test_what_the_paper_says_in_words_is_compared_too(tmp_path):
    watched = [(100, (4.0, 2.0, 8.0)), (200, (1.0, 1.0, 8.0))]
    folders = [
        with_published(write_run(tmp_path / label, experiment="Fig. 3", label=label), k5=k5)
        for label, k5 in (("Uniform", 91.0), ("AW-13D", 91.4))
    ]
    folders.append(write_run(tmp_path / "fig4", experiment="Fig. 4", observed=watched))
    text = run(folders, tmp_path / "out", published=True)
    assert "AW-13D less Uniform at K=5: paper +0.15, ours +0.40." in text
    assert "AW-25D" not in text
    assert "over its maximum: MTD 0.25, Last-MTD 0.50, FitNets 1.00. Paper: MTD falls" in text


def test_the_best_f1_is_that_of_the_rule_that_chose(tmp_path):
    folder = write_run(tmp_path / "mtd")
    (folder / "val.csv").write_text("step,f1,f1_published\n1,0.9,0.6\n2,0.8,0.7\n")
    assert read_run(folder, group="all").percent["val f1"] == pytest.approx(70)
    (folder / "val.csv").write_text("step,f1\n1,x\n")
    with pytest.raises(ConfigError, match=r"val\.csv: not a table of validations"):
        read_run(folder, group="all")


def test_the_command(tmp_path):
    folder = write_run(tmp_path / "mtd")
    command = [sys.executable, "-m", "training", "compare", str(folder), "-o", str(tmp_path / "out")]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert f"Made by `python -m training compare {folder} -o {tmp_path / 'out'}`" in told.stdout
    (folder / "metrics.json").unlink()
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert told.returncode == 2
    assert told.stderr.count("\n") == 1
