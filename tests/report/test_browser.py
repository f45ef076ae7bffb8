"""The scan report in a real browser: a script is added to the page, plays its user, and writes down what it saw."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest

from grn_monai.labels import LAYER_COLOURS
from grn_monai.report import build_scan_report
from tests.report.measured import HOSTILE, SHAPE, SPACING, save, scan, volumes, write_measured

CHROMIUM = shutil.which("chromium")

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium (Debian's package) is not installed")

_FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--enable-logging=stderr"),
)

_WATCH = """<script>
window.seen = { errors: [], blocked: [] };
addEventListener("error", (event) => seen.errors.push(String(event.message)), true);
addEventListener("unhandledrejection", (event) => seen.errors.push(String(event.reason)));
addEventListener("securitypolicyviolation", (event) => seen.blocked.push(event.blockedURI));
</script>"""

_PLAY = """<script>
const wait = (ms) => new Promise((done) => setTimeout(done, ms));
async function until(find) {
  for (let i = 0; i < 2000; i++) {
    const found = find();
    if (found) return found;
    await wait(10);
  }
  throw new Error("waited in vain for " + find);
}
const $ = (query, within = document) => within.querySelector(query);
const $$ = (query, within = document) => [...within.querySelectorAll(query)];
function change(element, value, kind = "input") {
  if (element.type === "checkbox") element.checked = value; else element.value = value;
  element.dispatchEvent(new Event(kind, { bubbles: true }));
}
// The browser prints the page at its load event. Decoding takes real time, so a frame whose document is open keeps that
// event back until the play is over.
const holder = document.createElement("iframe");
document.body.append(holder);
holder.contentDocument.open();
addEventListener("DOMContentLoaded", async () => {
  const out = {};
  try { await play(out); } catch (error) { out.failed = String(error.stack); }
  const requests = performance.getEntriesByType("resource").map((entry) => entry.name);
  Object.assign(out, { ...seen, requests: requests.filter((name) => !/^(data|blob):/.test(name)) });
  const pre = document.createElement("pre");
  pre.id = "result";
  pre.textContent = JSON.stringify(out);
  document.body.append(pre);
  holder.contentDocument.close();
});
async function play(out) {
%s
}
</script>"""


def browse(page: str, folder: Path, play: str) -> dict[str, Any]:
    """Let the browser open a page and play a script in it; what the script put into `out`, and the console."""
    path = folder / "played.html"
    watched = page.replace("<head>", "<head>" + _WATCH, 1)
    path.write_text(watched.replace("</body>", _PLAY % play + "</body>"), encoding="utf-8")
    done = _chromium(path, folder)
    found = re.search(r'<pre id="result">(.*?)</pre>', done.stdout, re.DOTALL)
    assert found, f"the script did not end: {done.stderr[-2000:]}"
    result: dict[str, Any] = json.loads(html.unescape(found.group(1)))
    result["console"] = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    assert "failed" not in result, result["failed"]
    return result


def _chromium(path: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [str(CHROMIUM), *_FLAGS, "--dump-dom", f"--user-data-dir={folder / 'profile'}", path.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=100, check=True)


def clean(result: dict[str, Any]) -> bool:
    return not (result["errors"] or result["blocked"] or result["requests"] or result["console"])


_TABLE = """
  const names = () => $$("#scan-table tbody tr").filter((row) => !row.hidden).map((row) => $("a", row).textContent);
  const button = (text) => $$("#scan-table thead button").find((found) => found.textContent.trim() === text);
  const sorts = () => Object.fromEntries($$("#scan-table th[aria-sort]").map((head) =>
    [head.textContent.trim(), head.getAttribute("aria-sort")]).filter(([, value]) => value !== "none"));
  const cells = (index) => $$("#scan-table tbody tr").map((row) => row.cells[index].textContent);
  out.start = names();
  out.controls = $$(".needs-script").map((part) => part.hidden);
  for (const [key, text] of [["fat", "superficial fat"], ["scan", "Scan"], ["quality", "Quality"]]) {
    button(text).click();
    out[key + "1"] = [names(), sorts()];
    button(text).click();
    out[key + "2"] = [names(), sorts()];
  }
  button("superficial fat").focus();
  out.focus = document.activeElement.textContent.trim();
  button("superficial fat").click();
  change($("#measure"), "2", "change");
  out.volume = [$("#measure-title").textContent, cells(5), names()];
  change($("#measure"), "0", "change");
  out.thickness = cells(5);
  change($("#filter"), "BOB left");
  out.filtered = [names(), $("#shown").textContent];
  change($("#filter"), "dark");
  out.byFlag = names();
  change($("#filter"), "");
  change($("#only-flagged"), true, "change");
  out.flagged = [names(), $("#shown").textContent];
  let saved = null;
  URL.createObjectURL = (blob) => { saved = blob; return "#"; };
  $("#csv").click();
  out.csv = await saved.text();
  location.hash = "#row-3";
  await until(() => !$("#row-3").hidden);
  out.unhidden = names().length;
  out.hostile = [$$("img").length, window.broken === undefined, $$("#scan-table a").some((a) => a.textContent === %s)];
"""


def test_table_sorts_filters_and_saves(tmp_path: Path) -> None:
    page = build_scan_report(write_measured(tmp_path)).read_text(encoding="utf-8")
    seen = browse(page, tmp_path, _TABLE % json.dumps(HOSTILE))
    assert clean(seen), seen
    assert seen["start"] == [HOSTILE, "s10", "s9", "s2"]  # two flags, one, none, none
    assert seen["controls"] == [False, False]
    # by number (as text 10 would come before 9), the scan without fat last in either direction
    assert seen["fat1"] == [[HOSTILE, "s9", "s10", "s2"], {"superficial fat": "ascending"}]
    assert seen["fat2"] == [["s10", "s9", HOSTILE, "s2"], {"superficial fat": "descending"}]
    assert seen["scan1"] == [[HOSTILE, "s2", "s9", "s10"], {"Scan": "ascending"}]
    assert seen["scan2"] == [["s10", "s9", "s2", HOSTILE], {"Scan": "descending"}]
    assert seen["quality1"] == [[HOSTILE, "s10", "s9", "s2"], {"Quality": "descending"}]
    assert seen["quality2"] == [["s9", "s2", "s10", HOSTILE], {"Quality": "ascending"}]
    assert seen["focus"] == "superficial fat"
    assert seen["volume"] == ["Volume (ml)", ["0.00", "5.00", "18.00", "20.00"], ["s2", HOSTILE, "s9", "s10"]]
    assert seen["thickness"] == ["2.50", "9.00", "10.00", "–"]
    assert seen["filtered"] == [["s2"], "1 of 4 scans"]
    assert seen["byFlag"] == [HOSTILE]
    assert seen["flagged"] == [[HOSTILE, "s10"], "2 of 4 scans"]
    lines = seen["csv"].splitlines()
    assert lines[0].startswith('Scan,Quality,Subject,Side,"dermis: Thickness along the A-line, mean (mm)",')
    flags = "look: Planes disagree; Dark A-lines"
    assert lines[1].startswith(f'"<img src=x onerror=""window.broken=1"">",{flags},bob,right,')
    assert lines[1].split(",")[5:7] == ["2.5", "1"]
    assert len(lines) == 3
    assert seen["unhidden"] == 4
    assert seen["hostile"] == [0, True, True]


_VIEWER = """
  // Through a canvas of one pixel: the browser warns in its console when one canvas is read time and again.
  const pixel = (canvas, x, y) => {
    const one = new OffscreenCanvas(1, 1).getContext("2d");
    one.drawImage(canvas, Math.floor(x * canvas.width), Math.floor(y * canvas.height), 1, 1, 0, 0, 1, 1);
    return [...one.getImageData(0, 0, 1, 1).data];
  };
  const hash = (canvas) => canvas.toDataURL();
  const point = (canvas, kind, x, y) => {
    const box = canvas.getBoundingClientRect();
    canvas.dispatchEvent(new MouseEvent(kind, { bubbles: true,
      clientX: box.left + x * box.width, clientY: box.top + y * box.height }));
  };
  const scan = $("#scan-1");
  out.before = [scan.open, $$("canvas").length, $$("img").length];
  $("#scan-table a[href='#scan-1']").click();
  await until(() => $(".map canvas", scan));
  const [sagittal, transverse] = $$(".plane canvas", scan), [x, y] = $$(".plane input", scan);
  out.open = [scan.open, $$(".plane", scan).length, $$(".map", scan).length];
  const fat = [0.5, 9.5 / 48], skin = [0.5, 0.5 / 48], deep = [0.5, 40.5 / 48];
  out.shape = [sagittal, transverse].map((c) => c.getBoundingClientRect().width / c.getBoundingClientRect().height);
  out.widths = sagittal.getBoundingClientRect().width / transverse.getBoundingClientRect().width;
  out.bar = $(".plane .bar").getBoundingClientRect().width / sagittal.getBoundingClientRect().width;
  change(x, "2");
  out.near = [fat, skin, deep].map(([a, b]) => pixel(sagittal, a, b));
  const first = hash(sagittal), still = hash(transverse), mapBefore = hash($(".map canvas", scan));
  change(x, "9");
  out.far = [fat, skin, deep].map(([a, b]) => pixel(sagittal, a, b));
  out.changed = [hash(sagittal) !== first, hash(transverse) === still, hash($(".map canvas", scan)) !== mapBefore];
  out.said = [x.getAttribute("aria-label"), x.getAttribute("aria-valuetext"), $(".where", scan).textContent];
  sagittal.click();
  out.focus = document.activeElement === x;
  point(sagittal, "pointermove", 0.51, 9.5 / 48);
  out.read = $(".plane .read", scan).textContent;
  change($("#opacity"), "0");
  out.grey = pixel(sagittal, ...fat);
  change($("#opacity"), "100");
  out.opaque = pixel(sagittal, ...fat);
  change($(".layer-on[value='2']"), false, "change");
  out.off = [pixel(sagittal, ...fat), pixel(sagittal, ...deep)];
  $("#all-layers").click();
  out.none = [pixel(sagittal, ...deep), $("#all-layers").textContent];
  const map = $(".map[data-label='2'] canvas", scan);
  point(map, "pointermove", 0.1, 0.33);
  out.mapNear = $(".map[data-label='2'] .read", scan).textContent;
  point(map, "pointermove", 0.9, 0.33);
  out.mapFar = $(".map[data-label='2'] .read", scan).textContent;
  out.mapPixels = [pixel(map, 0.1, 0.3), pixel(map, 0.9, 0.3)];
  out.scale = $$(".map[data-label='2'] .scale span", scan).map((end) => end.textContent);
  point(map, "click", 0.15, 0.88);
  out.went = [x.value, y.value];
  scan.open = false;
  await until(() => !$("canvas", scan));
  out.closed = $$("canvas").length;
  out.missing = $("#scan-2").textContent;
"""


def _tinted(grey: float, label: int, alpha: float) -> list[float]:
    colour = [int(LAYER_COLOURS[label][i : i + 2], 16) for i in (1, 3, 5)]
    return [(1 - alpha) * grey + alpha * part for part in colour]


def test_viewer_draws_what_the_volumes_hold(tmp_path: Path) -> None:
    scans = [scan("one", "ann", 2.5, 1), scan("two", "bob", 2.5, 0, segmentation=str(tmp_path / "gone.nii.gz"))]
    page = build_scan_report(write_measured(tmp_path, scans), slices=12).read_text(encoding="utf-8")
    seen = browse(page, tmp_path, _VIEWER)
    assert clean(seen), seen
    assert seen["before"] == [False, 0, 0]  # nothing is decoded before a scan is opened
    assert seen["open"] == [True, 2, 6]
    size = np.multiply(SHAPE, SPACING)
    assert seen["shape"] == pytest.approx([size[1] / size[2], size[0] / size[2]], rel=0.01)
    assert seen["widths"] == pytest.approx(size[1] / size[0], rel=0.01)
    assert seen["bar"] == pytest.approx(5 / size[1], rel=0.01)

    image, labels = volumes()
    low, high = np.percentile(image[::2, ::2, ::2], [0.5, 99.5])
    for key, index in (("near", 5), ("far", 19)):  # 12 of 24 slices: the middle ones 1, 3, 5 …
        expected = []
        for depth in (9, 0, 40):
            grey = 255 * np.clip((float(image[index, 10, depth]) - low) / (high - low), 0, 1)
            label = int(labels[index, 10, depth])
            expected.append([*(_tinted(grey, label, 0.42) if label else [grey] * 3), 255])
        assert np.abs(np.subtract(seen[key], expected)).max() <= 5, key
    assert np.abs(np.subtract(seen["near"][0], seen["far"][0])).max() > 20  # fat is darker there
    assert seen["changed"] == [True, True, True]
    where = "slice 19 of 0–23, x 9.8 mm"
    assert seen["said"] == ["Sagittal slice of scan one", where, where]
    assert seen["focus"] is True
    assert seen["read"] == "superficial fat; y 4.2 mm, depth 2.4 mm"

    grey = 255 * (20 - low) / (high - low)
    muscle = 255 * (120 - low) / (high - low)
    assert np.abs(np.subtract(seen["grey"][:3], grey)).max() <= 5
    assert seen["opaque"][:3] == _tinted(0, 2, 1)
    assert np.abs(np.subtract(seen["off"][0][:3], grey)).max() <= 5
    assert seen["off"][1][:3] == _tinted(0, 6, 1)
    assert np.abs(np.subtract(seen["none"][0][:3], muscle)).max() <= 5
    assert seen["none"][1] == "All layers on"

    assert seen["mapNear"] == "2.50 mm at x 1.3, y 2.6 mm"  # voxels 4 to 13 of 0.25 mm
    assert seen["mapFar"] == "3.50 mm at x 10.8, y 2.6 mm"
    assert seen["scale"] == ["0 mm", "3 mm"]  # P95 of all scans, rounded up
    viridis = matplotlib.colormaps["viridis"]
    for shown, step in zip(seen["mapPixels"], (int(2.5 / 3 * 64), 63), strict=True):  # 3.5 mm is beyond the bar's end
        assert shown[:3] == pytest.approx(np.multiply(viridis((step + 0.5) / 64)[:3], 255), abs=1)
    assert seen["went"] == ["1", "10"]
    assert seen["closed"] == 0
    assert "gone.nii.gz: found no such file" in seen["missing"]


_CURVES = """
  const scan = $("#scan-1");
  scan.open = true;
  const svg = await until(() => $(".curves svg", scan)), frame = $(".area", svg).getBoundingClientRect();
  out.parts = [$$(".plane", scan).length, $$(".map", scan).length, $$(".plane input", scan).map((x) => x.hidden)];
  out.paths = $$("path", svg).map((path) => [path.dataset.label, path.getAttribute("stroke"), path.getAttribute("d")]);
  out.size = [$(".area", svg).x.baseVal.value, $(".area", svg).width.baseVal.value,
    ["y", "height"].map((key) => $(".area", svg)[key].baseVal.value)];
  out.texts = $$("text", svg).map((text) => text.textContent);
  const point = (share) => $(".area", svg).dispatchEvent(new PointerEvent("pointermove", { bubbles: true,
    clientX: frame.left + share * frame.width, clientY: frame.top + 20 }));
  point(0.1);
  out.near = $(".curves .read").textContent;
  point(0.9);
  out.far = $(".curves .read").textContent;
  change($(".layer-on[value='2']"), false, "change");
  out.shown = $$("path", svg).map((path) => path.style.display);
  point(0.9);
  out.less = $(".curves .read").textContent;
"""


def test_a_single_slice_has_curves_in_place_of_maps(tmp_path: Path) -> None:
    folder = write_measured(tmp_path, [scan("one", "ann", 2.5, 1)])
    image, labels = volumes()
    labels[7, 5, labels[7, 5] == 3] = 2  # the membrane is absent on one A-line
    save(folder / "data/image.nii.gz", image[:, 5:6])
    save(folder / "data/seg.nii.gz", labels[:, 5:6])
    seen = browse(build_scan_report(folder).read_text(encoding="utf-8"), tmp_path, _CURVES)
    assert clean(seen), seen
    assert seen["parts"] == [1, 0, [True]]  # the transverse slice, whose slider has nowhere to go
    assert [(int(label), stroke) for label, stroke, _ in seen["paths"]] == list(LAYER_COLOURS.items())
    left, width, (top, height) = seen["size"]
    most = max(np.count_nonzero(labels[:, 5] == label, axis=1).max() for label in LAYER_COLOURS) * SPACING[2]
    for label, _, path in seen["paths"]:
        counts = np.count_nonzero(labels[:, 5] == int(label), axis=1)
        points = [(float(x), float(y)) for x, y in re.findall(r"[ML]([\d.]+) ([\d.]+)h0", path)]
        there = np.flatnonzero(counts)
        assert [x for x, _ in points] == pytest.approx(left + (there + 0.5) / 24 * width, abs=0.06)
        expected = top + height - counts[there] * SPACING[2] / (1.05 * most) * height
        assert [y for _, y in points] == pytest.approx(expected, abs=0.06)
        assert path.count("M") == (2 if label == "3" else 1)
    assert "x in mm" in seen["texts"]
    assert seen["near"].startswith("x 1.3 mm: dermis 0.50 mm, superficial fat 2.50 mm,")
    assert "superficial fat 3.50 mm" in seen["far"]
    assert seen["shown"] == ["", "none", "", "", "", ""]
    assert "superficial fat" not in seen["less"]


def test_nothing_from_outside_is_let_in(tmp_path: Path) -> None:
    page = build_scan_report(write_measured(tmp_path), slices=0).read_text(encoding="utf-8")
    page = page.replace(
        "<main>", '<main><img src="http://127.0.0.1:9/x.png"><script src="http://127.0.0.1:9/x.js"></script>'
    )
    seen = browse(page, tmp_path, "await wait(10);")
    assert sorted(seen["blocked"]) == ["http://127.0.0.1:9/x.js", "http://127.0.0.1:9/x.png"]
    assert not clean(seen)


_STILLS = """
  const shown = (image, x, y) => {
    const one = new OffscreenCanvas(1, 1).getContext("2d");
    one.drawImage(image, x * image.naturalWidth, y * image.naturalHeight, 1, 1, 0, 0, 1, 1);
    return [...one.getImageData(0, 0, 1, 1).data].slice(0, 3);
  };
  $("#scan-1").open = true;
  const images = $$("#scan-1 img");
  await Promise.all(images.map((image) => image.decode()));
  out.images = images.map((image) => [shown(image, 0.25, 40.5 / 48), shown(image, 0.75, 10.5 / 48)]);
  out.widths = images.map((image) => image.getBoundingClientRect().width);
  out.hidden = $$(".needs-script").every((part) => part.getBoundingClientRect().height === 0);
  out.fat = $$("#scan-table tbody td").map((cell) => cell.textContent).includes("9.00");
"""


def test_without_javascript_the_middle_slices_are_seen(tmp_path: Path) -> None:
    page = build_scan_report(write_measured(tmp_path)).read_text(encoding="utf-8")
    # What a browser makes of the page when scripts are off: none runs, and <noscript> is part of the page.
    page = re.sub(r"</?noscript>", "", re.sub(r"<script[^>]*>.*?</script>", "", page, flags=re.DOTALL))
    seen = browse(page, tmp_path, _STILLS)
    assert clean(seen), seen
    image, labels = volumes()
    low, high = np.percentile(image[::2, ::2, ::2], [0.5, 99.5])
    for shown, places in zip(seen["images"], ([(12, 5), (12, 15)], [(6, 10), (18, 10)]), strict=True):
        for colour, (x, y), depth in zip(shown, places, (40, 10), strict=True):
            grey = 255 * (float(image[x, y, depth]) - low) / (high - low)
            assert colour == pytest.approx(_tinted(grey, int(labels[x, y, depth]), 0.42), abs=8)
    assert seen["widths"][0] / seen["widths"][1] == pytest.approx(20 * 0.4 / (24 * 0.5), rel=0.01)
    assert seen["hidden"] is True
    assert seen["fat"] is True
