"""The model report's page: its figures, the hard cases, what it needs of a browser."""

import base64
import dataclasses
import html
import io
import itertools
import json
import re
import shutil
import subprocess

import numpy as np
import pytest
from PIL import Image
from report_contents import Page, make_contents

from components.model_report import page
from components.model_report.calibration import reliability_bins
from components.model_report.predictions import flips
from models import features

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.fixture(scope="session")
def contents():
    return make_contents()


@pytest.fixture(scope="session")
def files(contents):
    return page.render(contents, "report.html")


@pytest.fixture(scope="session")
def shown(files):
    return Page(files["report.html"].decode())


@pytest.fixture(scope="session")
def charts(files):
    """Stand-ins, since drawing takes a second: the hard cases below are about the page's text."""
    names = [name.removesuffix(".png") for name in files if name.endswith(".png")]
    return {name: page.Chart(name, f"Chart {name}.", b"", b"", 1, 1) for name in names}


def test_every_metric_is_the_evaluators(contents, shown):
    results, values = contents.results, shown.values
    for name in ("accuracy", "top_3_accuracy", "loss"):
        assert float(values[name]) == results.metrics[name]
    for name, metrics in results.by_class.items():
        for metric in ("precision", "recall", "f1"):
            assert float(values[f"{metric}/{name}"]) == metrics[metric]
        assert int(values[f"images/{name}"]) == results.confusion[features.CLASS_NAMES.index(name)].sum()
    confusion = [[int(values[f"confusion/{a}/{p}"]) for p in features.CLASS_NAMES] for a in features.CLASS_NAMES]
    assert np.array_equal(confusion, results.confusion)
    for threshold in results.thresholds:
        key = f"threshold/{threshold.metric}/{threshold.class_name or 'all'}/{threshold.kind}"
        assert float(values[f"{key}/value"]) == threshold.value
        assert float(values[f"{key}/bound"]) == threshold.bound


def test_what_is_written_is_the_value_rounded(shown):
    html_values = shown.values
    for text in (f"{float(html_values['accuracy']):.4f}", f"{float(html_values['ece']):.4f}"):
        assert text in shown.words


def test_calibration_is_of_the_predictions(contents, shown):
    found = contents.predictions
    bins = reliability_bins(found.confidence, found.correct)
    assert float(shown.values["ece"]) == bins.expected_calibration_error
    assert sum(int(shown.values[f"bin/{index}/images"]) for index in range(15)) == len(found.labels)


def test_comparison_counts_what_changed(contents, shown):
    before, now = contents.baseline_predictions, contents.predictions
    gained, lost = flips(before, now)
    values = shown.values
    assert int(values["comparison/gained"]) - int(values["comparison/lost"]) == now.correct.sum() - before.correct.sum()
    assert int(values["comparison/gained"]) == len(gained) > 0
    assert int(values["comparison/lost"]) == len(lost) > 0
    old, new = contents.baseline_results.metrics, contents.results.metrics
    for name in ("accuracy", "loss", "recall_cat"):
        assert float(values[f"baseline/{name}"]) == old[name]
        assert float(values[f"change/{name}"]) == pytest.approx(new[name] - old[name])


def test_better_and_worse_follow_the_metric():
    assert page.Change("loss", "loss", before=2.0, now=1.0).better
    assert not page.Change("loss", "loss", before=1.0, now=2.0).better
    assert page.Change("accuracy", "accuracy", before=0.5, now=0.6).better
    assert page.Change("accuracy", "accuracy", before=0.5, now=0.5).better is None


def test_images_show_actual_and_predicted_with_the_probability(contents, shown):
    found = contents.predictions
    alt = [attributes["alt"] for attributes in shown.all("img")]
    first = f"Test image 0: actual {features.CLASS_NAMES[found.labels[0]]}, "
    first += f"predicted {features.CLASS_NAMES[found.classes[0]]} with {found.confidence[0]:.0%}"
    assert any(text.startswith(first) for text in alt)
    wrong = np.flatnonzero(~found.correct)
    worst = wrong[found.confidence[wrong].argmax()]
    assert any(text.startswith(f"Test image {worst}: ") for text in alt)


def test_images_are_shown_as_the_model_saw_them(contents, charts):
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    grey, opaque, turned = pixels[:, :, :1], np.full((32, 32, 1), 255, np.uint8), Image.fromarray(pixels)
    turned.getexif()[0x0112] = 6
    images = {
        "turned by its camera": (turned, np.rot90(pixels, -1)),
        "transparent": (Image.fromarray(np.concatenate([pixels, opaque // 5], axis=-1)), pixels),
        "16 bits": (Image.fromarray(grey[:, :, 0].astype(np.uint16) * 256), np.repeat(grey, 3, axis=-1)),
    }
    indices = contents.gallery.first[: len(images)]
    files = {}
    for index, (image, _) in zip(indices, images.values(), strict=True):
        file = io.BytesIO()
        image.save(file, "PNG", exif=image.getexif())
        files[index] = file.getvalue()
    changed = dataclasses.replace(contents, image_files={**contents.image_files, **files})
    shown = Page(page.render_html(changed, charts))
    for index, (_, seen) in zip(indices, images.values(), strict=True):
        sources = [img["src"] for img in shown.all("img") if img["alt"].startswith(f"Test image {index}: ")]
        for source in sources:
            with Image.open(io.BytesIO(base64.b64decode(source.removeprefix("data:image/png;base64,")))) as image:
                np.testing.assert_array_equal(np.asarray(image), seen)
        assert sources


def test_lineage_has_data_source_settings_seconds_and_versions(contents, shown):
    assert float(shown.values["seconds/Trainer"]) == 187.5
    for text in ("3 min 08 s", "cached", "ab" * 32, "0123456789abcdef", "2.16.2", "2.16.1", "learning_rate", "epoch"):
        assert text in shown.words
    assert contents.settings["data"] in shown.words


def test_markup_in_what_is_shown_stays_text(files):
    written = files["report.html"].decode()
    assert "&lt;latency_budget_s&gt;" in written
    assert "<latency_budget_s>" not in written


# The hard cases.


def test_without_a_previous_model_it_says_so(charts):
    shown = Page(page.render_html(make_contents(baseline=False), charts))
    assert shown.words.count("o comparable earlier model: classes differ (new: frog)") == 2  # verdict and comparison
    assert "does not apply" in shown.words
    assert not any(name.startswith(("baseline/", "comparison/")) for name in shown.values)


def test_a_class_that_is_never_predicted_is_named(charts):
    shown = Page(page.render_html(make_contents(never=3), charts))
    assert "never predicted" in shown.words
    assert "It never answers cat." in shown.words
    assert "precision/cat" not in shown.values
    assert shown.values["predicted/cat"] == "0"
    assert "nan" not in " ".join(shown.values.values())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"floor": 0.99}, "1 threshold of the gate was missed."),
        ({"served": False}, "it did not serve on trial as it has to."),
        ({"skill": 0.0, "floor": 0.5}, "thresholds of the gate were missed"),
    ],
)
def test_a_refused_model_is_reported(charts, changes, words):
    contents = make_contents(**changes)
    written = page.render_html(contents, charts)
    shown = Page(written)
    assert "✗ NOT BLESSED" in shown.words
    assert words in shown.words
    assert "nothing was pushed" in shown.words
    missed = sum(not threshold.reached for threshold in contents.results.thresholds)
    assert written.count('data-reached="false"') == missed


def test_without_a_validation_split_it_warns_of_the_test_split(charts):
    shown = Page(page.render_html(make_contents(validation=False), charts))
    assert "the epochs were watched on the test split" in shown.words
    assert shown.values["exported_epoch"] == "3"  # the last one, though the second was the best
    assert "examples/validation" not in shown.values


def test_images_that_are_there_more_than_once_are_counted_among_the_data_and_in_the_model_card(charts):
    counts = {
        "train_examples": 1000,
        "validation_examples": 100,
        "test_examples": 300,
        "train_distinct_images": 1000,
        "validation_distinct_images": 99,
        "test_distinct_images": 300,
        "test_images_in_train": 3,
        "test_images_in_validation": 1,
        "test_overlap": 4,
    }
    contents = with_counts(make_contents(), counts)
    statistics = dict(contents.statistics)
    statistics["test"] = dataclasses.replace(statistics["test"], also_in={"train": 3, "validation": 1})
    shown = Page(page.render_html(dataclasses.replace(contents, statistics=statistics), charts))
    assert shown.values["images/test/in/train"] == "3"
    assert shown.values["images/test/in/validation"] == "1"
    assert "images/train/in/validation" not in shown.values
    data, card = shown.words.split("Model card After M. Mitchell")
    for part in (data, card):
        assert "4 of 300 test images are also in train or validation." in part
        assert "1 of 100 validation images are copies of others in validation." in part
    assert "No test image has the same pixels" not in shown.words


def test_the_model_card_says_that_no_test_image_was_learned_where_that_was_counted(contents, shown, charts):
    says = "No test image has the same pixels as one of the others."
    assert says in Page(page.render_html(with_counts(contents, {"test_overlap": 0}), charts)).words
    assert says not in shown.words  # nobody has counted
    assert "there more than once" not in shown.words


def with_counts(contents, counts):
    (source,) = contents.sources
    return dataclasses.replace(contents, sources=[dataclasses.replace(source, properties=counts)])


def test_a_gate_that_asks_for_next_to_nothing_is_named(charts, shown):
    assert "near chance" in shown.words  # the made-up floor is 0.1
    said = Page(page.render_html(make_contents(floor=0.3), charts))
    assert "near chance" not in said.words


def test_without_ml_metadata_it_says_so(charts):
    shown = Page(page.render_html(make_contents(metadata=False), charts))
    assert "ML Metadata is out of reach" in shown.words
    assert not any(name.startswith("seconds/") for name in shown.values)


def test_a_perfect_model_has_no_mistakes_to_show(charts):
    shown = Page(page.render_html(make_contents(skill=50.0), charts))
    assert "every test image is classified rightly" in shown.words
    assert float(shown.values["accuracy"]) == 1


# The page in a browser.


def test_the_page_is_self_contained(files, shown):
    references = [value for _, attributes in shown.elements for name, value in attributes.items() if name == "src"]
    references += [str(attributes["srcset"]) for attributes in shown.all("source")]
    assert references
    assert all(value.startswith("data:image/") for value in references)
    assert not list(shown.all("script"))
    assert {attributes["href"][0] for attributes in shown.all("a")} == {"#"}
    assert not re.search(r"url\(|@import|https?://", files["report.html"].decode())


def test_pictures_are_whole_and_beside_the_page(files, shown):
    pictures = [str(attributes["src"]) for attributes in shown.all("img")]
    assert all(base64.b64decode(picture.partition(",")[2]).startswith(b"\x89PNG") for picture in pictures)
    beside = {name for name in files if name.endswith(".png")}
    assert beside == {
        f"{name}.png"
        for name in (
            "learning_curves",
            "confusion_matrix",
            "class_metrics",
            "reliability_diagram",
            "label_distribution",
            "test_images",
            "confident_mistakes",
        )
    }
    assert all(files[name].startswith(b"\x89PNG") for name in beside)


def test_accessibility_basics(shown):
    (root,) = shown.all("html")
    assert root["lang"] == "en"
    assert any(attributes.get("name") == "viewport" for attributes in shown.all("meta"))
    assert all(attributes.get("alt") for attributes in shown.all("img"))
    levels = [int(tag[1]) for tag, _ in shown.elements if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))
    ids = [attributes["id"] for _, attributes in shown.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {str(attributes["href"]).removeprefix("#") for attributes in shown.all("a")} <= set(ids)
    assert {str(a["aria-labelledby"]) for a in shown.all("section")} <= set(ids)
    assert all("scope" in attributes for attributes in shown.all("th"))


MEASURE = """
<script>
addEventListener('load', () => {
  const root = document.documentElement;
  const resources = performance.getEntriesByType('resource').map(entry => entry.name);
  parent.document.title = JSON.stringify({
    width: innerWidth,
    too_wide: root.scrollWidth - root.clientWidth,
    images: document.images.length,
    broken: [...document.images].filter(image => !image.complete || image.naturalWidth === 0).length,
    fetched: resources.filter(name => !name.startsWith('data:')),
  });
});
</script>
"""


@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium on the PATH")
@pytest.mark.parametrize("width", [1440, 390])
def test_chromium_shows_it_whole_without_network_or_errors(files, shown, tmp_path, width):
    # In a frame of the width that is wanted: Chromium's windows are 500 pixels wide at least.
    measured = files["report.html"].decode().replace("</body>", f"{MEASURE}</body>")
    path = tmp_path / "frame.html"
    path.write_text(
        '<!DOCTYPE html><meta charset="utf-8"><title></title>'
        f'<iframe style="border: 0; width: {width}px; height: 900px" srcdoc="{html.escape(measured)}"></iframe>'
    )
    command = [
        CHROMIUM,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-background-networking",
        "--host-resolver-rules=MAP * ~NOTFOUND",
        "--enable-logging=stderr",
        "--v=0",
        f"--user-data-dir={tmp_path / 'profile'}",
        "--window-size=1600,1000",
        "--virtual-time-budget=5000",
        "--dump-dom",
        path.as_uri(),
    ]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert "CONSOLE" not in ended.stderr, ended.stderr
    (title,) = re.findall(r"<title>(.*?)</title>", ended.stdout)
    images = len(list(shown.all("img")))
    expected = {"width": width, "too_wide": 0, "images": images, "broken": 0, "fetched": []}
    assert json.loads(html.unescape(title)) == expected
