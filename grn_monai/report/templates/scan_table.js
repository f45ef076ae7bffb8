// The table of all scans, and the links between its rows and the scans.
const table = byId("scan-table"), body = table.tBodies[0], heads = [...table.tHead.rows[0].cells];
const rows = [...body.rows].map((row, index) => ({
  row,
  index,
  words: [...row.cells].filter((_, i) => !("layer" in heads[i].dataset)).map((cell) => cell.textContent).join(" ")
    .toLowerCase(),
}));
const filter = byId("filter"), onlyFlagged = byId("only-flagged"), select = byId("measure");
const collator = new Intl.Collator(undefined, { numeric: true, sensitivity: "base" });
let sorted = { column: -1, descending: false };
const measure = () => page.measures[select ? select.value : 0];

function cellText(entry, column) {
  const cell = entry.row.cells[column], text = (cell.firstElementChild || cell).textContent.trim();
  return text === "–" ? "" : text;
}

/** What a cell sorts by: a number, a text, or null where it is missing. */
function keyOf(entry, column) {
  const head = heads[column].dataset;
  if ("layer" in head) return measure().values[entry.index][head.layer];
  if (head.kind === "text") return cellText(entry, column) || null;
  const value = entry.row.cells[column].dataset.value;
  return value === "" ? null : Number(value);
}

function sortRows() {
  const { column, descending } = sorted, sign = descending ? -1 : 1;
  const keyed = rows.map((entry) => [column < 0 ? entry.index : keyOf(entry, column), entry]);
  keyed.sort(([a, first], [b, second]) => {
    if (a === null || b === null) return (a === null) - (b === null) || first.index - second.index; // missing: last
    const order = typeof a === "string" ? collator.compare(a, b) : a - b;
    return sign * order || first.index - second.index;
  });
  body.append(...keyed.map(([, entry]) => entry.row));
  heads.forEach((head, i) =>
    head.setAttribute("aria-sort", i !== column ? "none" : descending ? "descending" : "ascending"));
}

function filterRows() {
  const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
  let count = 0;
  for (const { row, words: text } of rows) {
    row.hidden = (onlyFlagged.checked && row.dataset.flagged === "0") || !words.every((word) => text.includes(word));
    count += !row.hidden;
  }
  byId("shown").textContent = `${count} of ${rows.length} scan${rows.length === 1 ? "" : "s"}`;
}

function fillMeasure() {
  const { title, digits, values } = measure();
  byId("measure-title").textContent = title;
  for (const { row, index } of rows) {
    heads.forEach((head, i) => {
      if (!("layer" in head.dataset)) return;
      const value = values[index][head.dataset.layer];
      row.cells[i].textContent = value === null ? "–" : fixed(value, digits);
      row.cells[i].title = value === null ? "layer not found or not measured" : "";
    });
  }
  sortRows();
}

function csvText() {
  const quoted = (text) => (/[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
  const title = (head) => head.textContent.trim() + ("layer" in head.dataset ? `: ${measure().title}` : "");
  const lines = [heads.map(title)];
  const order = new Map(rows.map((entry) => [entry.row, entry]));
  for (const row of body.rows) {
    if (row.hidden) continue;
    const entry = order.get(row);
    lines.push(heads.map((head, i) => {
      if ("layer" in head.dataset) return String(keyOf(entry, i) ?? "");
      const flags = [...row.cells[i].querySelectorAll(".below, .partly")].map((flag) => flag.textContent);
      return [cellText(entry, i), flags.join("; ")].filter(Boolean).join(": ");
    }));
  }
  return lines.map((line) => line.map(quoted).join(",") + "\n").join("");
}

function saveCsv() {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([csvText()], { type: "text/csv" }));
  link.download = "scans.csv";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

function tableControls() {
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    head.setAttribute("aria-sort", "none");
    button.addEventListener("click", () => {
      const first = head.dataset.first === "descending";
      sorted = { column, descending: sorted.column === column ? !sorted.descending : first };
      sortRows();
    });
  });
  filter.addEventListener("input", filterRows);
  onlyFlagged.addEventListener("change", filterRows);
  if (select) {
    select.addEventListener("change", fillMeasure);
    if (select.value !== "0") fillMeasure();
  }
  byId("csv").addEventListener("click", saveCsv);
  filterRows();
}

function reveal() {
  const target = byId(decodeURIComponent(location.hash.slice(1)));
  if (!target) return;
  if (target.matches("details.scan")) target.open = true;
  if (target.matches("tr") && target.hidden) {
    filter.value = "";
    onlyFlagged.checked = false;
    filterRows();
  }
  target.scrollIntoView();
}

tableControls();
document.addEventListener("click", (event) => {
  const link = event.target.closest("a[href^='#scan-'], a[href^='#row-']");
  if (link && link.hash === location.hash) reveal(); // no hashchange follows
});
window.addEventListener("hashchange", reveal);
if (location.hash) reveal();
