// A viewer for each scan that is open: slices of both planes with their layers, and thickness maps.
const colours = new Map(Object.entries(page.labels).map(([value, label]) => [Number(value), rgb(label.colour)]));
const viridis = page.viridis.map(rgb);
const overlay = { alpha: 0.42, hidden: new Set() };
const viewers = new Map(); // open <details> to its viewer
const building = new Map(); // <details> to a mark of the opening that is being built or shown
const CANVAS = 800; // pixels of a canvas along its longer side, at most

function rgb(hex) {
  return [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16));
}

async function inflated(text) {
  const packed = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

async function decoded(uri) {
  const image = new Image();
  image.src = uri;
  await image.decode();
  return image;
}

/** Make a canvas to scale: square pixels, as many for each voxel as fit. */
function sizeCanvas(canvas, view, limit) {
  const pixel = Math.min(view.width_mm / view.width, view.height_mm / view.height);
  const width = view.width_mm / pixel, height = view.height_mm / pixel;
  const zoom = Math.max(1, Math.floor(limit / Math.max(width, height)));
  canvas.width = Math.round(width * zoom);
  canvas.height = Math.round(height * zoom);
  canvas.style.aspectRatio = `${view.width_mm} / ${view.height_mm}`;
}

/** Column and row of the picture below the pointer. */
function under(event, canvas, view) {
  const box = canvas.getBoundingClientRect();
  const column = Math.floor(((event.clientX - box.left) / box.width) * view.width);
  const row = Math.floor(((event.clientY - box.top) / box.height) * view.height);
  return [Math.min(Math.max(column, 0), view.width - 1), Math.min(Math.max(row, 0), view.height - 1)];
}

function painted(width, height, paint) {
  const canvas = document.createElement("canvas");
  canvas.width = width;
  canvas.height = height;
  const context = canvas.getContext("2d");
  const pixels = context.createImageData(width, height);
  paint(pixels.data);
  context.putImageData(pixels, 0, 0);
  return canvas;
}

/** Colour of the layers of one slice; a layer's outline is stronger than its inside. */
function tint(labels, width, height) {
  return painted(width, height, (data) => {
    const inside = Math.round(255 * overlay.alpha), edge = Math.min(255, Math.round(510 * overlay.alpha));
    for (let i = 0; i < width * height; i++) {
      const value = labels[i], colour = colours.get(value);
      if (!colour || overlay.hidden.has(value)) continue;
      const outline = (i >= width && labels[i - width] !== value) || (i % width > 0 && labels[i - 1] !== value);
      data.set(colour, 4 * i);
      data[4 * i + 3] = outline ? edge : inside;
    }
  });
}

function clone(id) {
  return byId(id).content.firstElementChild.cloneNode(true);
}

function planeView(view, image, labels, scan, moved) {
  const figure = clone("plane-view"), canvas = figure.querySelector("canvas"), slider = figure.querySelector("input");
  const read = figure.querySelector(".read"), where = figure.querySelector(".where");
  const { title, names: [axis, down, lateral] } = view, size = view.width * view.height;
  figure.querySelector("b").textContent = title;
  const bar = figure.querySelector(".bar");
  bar.style.width = `${((100 * view.bar_mm) / view.width_mm).toFixed(2)}%`;
  bar.dataset.mm = view.bar_mm;
  sizeCanvas(canvas, view, CANVAS);
  slider.max = view.indices.length - 1;
  slider.hidden = view.indices.length === 1;
  slider.value = Math.floor(view.indices.length / 2);
  slider.setAttribute("aria-label", `${title} slice of scan ${scan}`);
  const context = canvas.getContext("2d");
  const slice = () => labels.subarray(slider.value * size, (Number(slider.value) + 1) * size);

  function draw() {
    const i = Number(slider.value), [width, height] = view.tile;
    const left = (i % view.columns) * width, top = Math.floor(i / view.columns) * height;
    context.imageSmoothingEnabled = true;
    context.drawImage(image, left, top, view.width, view.height, 0, 0, canvas.width, canvas.height);
    context.imageSmoothingEnabled = false;
    context.drawImage(tint(slice(), view.width, view.height), 0, 0, canvas.width, canvas.height);
    const text = view.of === 1
      ? "single slice"
      : `slice ${view.indices[i]} of 0–${view.of - 1}, ${axis} ${fixed(view.positions[i], 1)} mm`;
    where.textContent = text;
    slider.setAttribute("aria-valuetext", text);
    canvas.setAttribute("aria-label", `${title} ${text}, scan ${scan}`);
  }

  slider.addEventListener("input", () => {
    draw();
    moved();
  });
  canvas.addEventListener("click", () => slider.focus());
  canvas.addEventListener("pointermove", (event) => {
    const [column, row] = under(event, canvas, view), value = slice()[row * view.width + column];
    const name = page.labels[value] ? page.labels[value].name : value ? `label ${value}` : "background";
    const across = ((column + 0.5) * view.width_mm) / view.width, deep = ((row + 0.5) * view.height_mm) / view.height;
    read.textContent = `${name}; ${lateral} ${fixed(across, 1)} mm, ${down} ${fixed(deep, 1)} mm`;
  });
  canvas.addEventListener("pointerleave", () => (read.textContent = ""));
  draw();
  return {
    figure,
    draw,
    share: () => view.positions[slider.value] / view.of_mm,
    go(share) {
      const wanted = share * view.of_mm, gaps = view.positions.map((mm) => Math.abs(mm - wanted));
      slider.value = gaps.indexOf(Math.min(...gaps));
      draw();
    },
  };
}

function mapView(value, view, counts, planes, moved) {
  const figure = clone("map-view"), [canvas, scale] = figure.querySelectorAll("canvas");
  const read = figure.querySelector(".read"), label = page.labels[value];
  const top = label.top_mm || Math.max(view.step_mm, counts.reduce((a, b) => Math.max(a, b), 0) * view.step_mm);
  figure.dataset.label = value;
  figure.querySelector("figcaption").textContent = label.name;
  const ends = figure.querySelectorAll(".scale span");
  ends[0].textContent = "0 mm";
  ends[1].textContent = `${Number(top.toPrecision(3))} mm`;
  canvas.setAttribute("aria-label", `Thickness map of the ${label.name}, 0 to ${ends[1].textContent}`);
  sizeCanvas(canvas, view, 300);
  const colourOf = (share) => viridis[Math.min(viridis.length - 1, Math.floor(share * viridis.length))];
  const context = canvas.getContext("2d");
  const picture = painted(view.width, view.height, (data) => {
    counts.forEach((count, i) => {
      if (count) data.set([...colourOf((count * view.step_mm) / top), 255], 4 * i);
    });
  });
  scale.getContext("2d").drawImage(
    painted(64, 1, (data) => viridis.forEach((colour, i) => data.set([...colour, 255], 4 * i))), 0, 0);

  function draw() {
    context.clearRect(0, 0, canvas.width, canvas.height);
    context.imageSmoothingEnabled = false;
    context.drawImage(picture, 0, 0, canvas.width, canvas.height);
    context.fillStyle = "rgba(255, 255, 255, 0.75)";
    const x = Math.round(planes[0].share() * canvas.width), y = planes[1].share() * canvas.height;
    context.fillRect(x, 0, 1, canvas.height);
    context.fillRect(0, Math.round(y), canvas.width, 1);
  }

  canvas.addEventListener("pointermove", (event) => {
    const [column, row] = under(event, canvas, view), count = counts[row * view.width + column];
    const x = ((column + 0.5) * view.width_mm) / view.width, y = ((row + 0.5) * view.height_mm) / view.height;
    const thickness = count ? `${fixed(count * view.step_mm, 2)} mm` : "not met";
    read.textContent = `${thickness} at x ${fixed(x, 1)}, y ${fixed(y, 1)} mm`;
  });
  canvas.addEventListener("pointerleave", () => (read.textContent = ""));
  canvas.addEventListener("click", (event) => {
    const [column, row] = under(event, canvas, view);
    planes[0].go((column + 0.5) / view.width);
    planes[1].go((row + 0.5) / view.height);
    moved();
  });
  draw();
  return { figure, draw };
}

function drawn(parent, name, attributes, text = "") {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  Object.entries(attributes).forEach(([key, value]) => element.setAttribute(key, value));
  element.textContent = text;
  parent.append(element);
  return element;
}

/** Round positions of grid lines from 0 to `end`, at most `most` steps. */
function gridSteps(end, most) {
  const power = 10 ** Math.floor(Math.log10(end / most));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((width) => end / width <= most);
  return Array.from({ length: Math.floor(end / step + 1e-9) + 1 }, (_, i) => i * step);
}

/** Thickness of all layers of a single slice over the only lateral axis that has more than one voxel. */
function curveView(thickness, countsOf) {
  const figure = clone("curve-view"), svg = figure.querySelector("svg"), read = figure.querySelector(".read");
  const across = thickness.height === 1, axis = across ? "x" : "y";
  const size = across ? thickness.width : thickness.height, length = across ? thickness.width_mm : thickness.height_mm;
  const place = { left: 44, top: 8, width: 700, height: 260 }, bottom = place.top + place.height;
  const step = length / size, lines = thickness.labels.map((value, i) => [value, countsOf(i)]);
  const most = lines.reduce((top, [, counts]) => counts.reduce((a, b) => Math.max(a, b), top), 1) * thickness.step_mm;
  const x = (mm) => place.left + (mm / length) * place.width, y = (mm) => bottom - (mm / (1.05 * most)) * place.height;
  svg.setAttribute("viewBox", `0 0 ${place.left + place.width + 12} ${bottom + 40}`);
  svg.setAttribute("aria-label", `Thickness of every layer in mm against ${axis} in mm`);
  for (const mm of gridSteps(1.05 * most, 6)) {
    drawn(svg, "line", { class: "grid", x1: place.left, x2: place.left + place.width, y1: y(mm), y2: y(mm) });
    drawn(svg, "text", { x: place.left - 7, y: y(mm) + 4, "text-anchor": "end" }, String(Number(mm.toPrecision(6))));
  }
  for (const mm of gridSteps(length, 8)) {
    drawn(svg, "line", { class: "grid", x1: x(mm), x2: x(mm), y1: bottom, y2: bottom + 5 });
    drawn(svg, "text", { x: x(mm), y: bottom + 18, "text-anchor": "middle" }, String(Number(mm.toPrecision(6))));
  }
  drawn(svg, "text", { x: x(length / 2), y: bottom + 36, "text-anchor": "middle" }, `${axis} in mm`);
  drawn(svg, "text", { transform: `translate(11 ${y(most / 2)}) rotate(-90)`, "text-anchor": "middle" }, "mm");
  const paths = lines.map(([value, counts]) => {
    let path = "";
    counts.forEach((count, i) => {
      if (!count) return; // a gap where the layer is absent; h0 lets a voxel without neighbours show as a dot
      path += `${i && counts[i - 1] ? "L" : "M"}${x((i + 0.5) * step).toFixed(1)} ${y(count * thickness.step_mm).toFixed(1)}h0`;
    });
    return drawn(svg, "path", { d: path, stroke: page.labels[value].colour, "data-label": value });
  });
  const here = drawn(svg, "line", { class: "here", y1: place.top, y2: bottom });
  const area = drawn(svg, "rect", { class: "area", x: place.left, y: place.top, width: place.width, height: place.height });
  area.addEventListener("pointermove", (event) => {
    const box = area.getBoundingClientRect(), share = (event.clientX - box.left) / box.width;
    const i = Math.min(Math.max(Math.floor(share * size), 0), size - 1), mm = (i + 0.5) * step;
    here.setAttribute("x1", x(mm));
    here.setAttribute("x2", x(mm));
    here.style.visibility = "visible";
    const shown = lines.filter(([value]) => !overlay.hidden.has(value)).map(([value, counts]) =>
      `${page.labels[value].name} ${counts[i] ? `${fixed(counts[i] * thickness.step_mm, 2)} mm` : "not met"}`);
    read.textContent = `${axis} ${fixed(mm, 1)} mm: ${shown.join(", ")}`;
  });
  area.addEventListener("pointerleave", () => {
    here.style.visibility = "hidden";
    read.textContent = "";
  });
  function draw() {
    paths.forEach((path) => (path.style.display = overlay.hidden.has(Number(path.dataset.label)) ? "none" : ""));
  }
  draw();
  return { figure, draw };
}

async function buildViewer(details, mark) {
  const content = JSON.parse(details.querySelector(".pictures").textContent);
  const place = details.querySelector(".viewer"), scan = details.querySelector(".name").textContent;
  const planes = [], maps = [], curves = [], moved = () => maps.forEach((map) => map.draw());
  const strip = document.createElement("div"), thickness = content.thickness;
  strip.className = "planes";
  for (const view of content.planes) {
    const [image, labels] = await Promise.all([decoded(view.image), inflated(view.labels)]);
    const plane = planeView(view, image, labels, scan, moved);
    plane.figure.style.flex = `${view.width_mm} 1 0`; // one scale for both planes
    strip.append(plane.figure);
    planes.push(plane);
  }
  const wide = content.planes.reduce((sum, view) => sum + view.width_mm, 0);
  const high = Math.max(...content.planes.map((view) => view.height_mm));
  const most = `${Math.round((540 * wide) / high) + 16}px`;
  Object.assign(strip.style, { maxWidth: most, flexBasis: most });
  const built = [strip];
  if (thickness && thickness.labels.length) {
    const bytes = await inflated(thickness.values), size = thickness.width * thickness.height;
    const counts = thickness.bytes === 2 ? new Uint16Array(bytes.buffer) : bytes;
    const heading = document.createElement("h3"), grid = document.createElement("div");
    const side = document.createElement("div");
    side.className = "thickness";
    heading.textContent = "Thickness along the A-line";
    const caption = document.createElement("p"), countsOf = (i) => counts.subarray(i * size, (i + 1) * size);
    caption.className = "caption";
    if (thickness.width === 1 || thickness.height === 1) {
      caption.textContent = "A single slice: thickness over its width. A gap: the A-line does not meet the layer.";
      side.classList.add("wide");
      curves.push(curveView(thickness, countsOf));
      grid.append(curves[0].figure);
    } else {
      caption.textContent =
        "Seen along the beam: x to the right, y downwards. Grey: the A-line does not meet the layer. White lines: " +
        "the slices above; click on a map to go there. One colour bar a layer for all scans, to the highest 95th " +
        "percentile of a scan.";
      grid.className = "maps";
      thickness.labels.forEach((value, i) => {
        maps.push(mapView(value, thickness, countsOf(i), planes, moved));
        grid.append(maps[i].figure);
      });
    }
    side.append(heading, grid, caption);
    built.push(side);
  }
  if (building.get(details) !== mark) return; // closed meanwhile
  place.replaceChildren(...built);
  viewers.set(details, { draw: () => [...planes, ...curves].forEach((part) => part.draw()) });
}

async function toggled(details) {
  const place = details.querySelector(".viewer");
  if (!place) return;
  if (!details.open) {
    viewers.delete(details); // the pictures of a closed scan take no memory
    building.delete(details);
    place.replaceChildren();
    return;
  }
  if (building.has(details)) return; // open from the start: told here and by the event
  const mark = {};
  building.set(details, mark);
  try {
    await buildViewer(details, mark);
  } catch (error) {
    const note = document.createElement("p");
    note.className = "note";
    note.textContent = `This browser could not show the pictures (${error.message}); one from 2023 or later can.`;
    place.replaceChildren(note);
  }
}

function redraw() {
  viewers.forEach((viewer) => viewer.draw());
}

function overlayControls() {
  const opacity = byId("opacity"), shown = byId("opacity-value"), all = byId("all-layers");
  if (!opacity) return;
  const boxes = [...document.querySelectorAll(".layer-on")];

  function changed() {
    overlay.alpha = opacity.value / 100;
    shown.textContent = `${opacity.value} %`;
    overlay.hidden = new Set(boxes.filter((box) => !box.checked).map((box) => Number(box.value)));
    all.textContent = boxes.some((box) => box.checked) ? "All layers off" : "All layers on";
    redraw();
  }

  opacity.addEventListener("input", changed);
  boxes.forEach((box) => box.addEventListener("change", changed));
  all.addEventListener("click", () => {
    const on = !boxes.some((box) => box.checked);
    boxes.forEach((box) => (box.checked = on));
    changed();
  });
  changed(); // a browser may bring back the settings of an earlier visit
}

overlayControls();
document.querySelectorAll("details.scan").forEach((details) => {
  details.addEventListener("toggle", () => toggled(details));
  if (details.open) toggled(details);
});
