// What both parts of the scan report's script share. Every text goes into the page as textContent.
const page = JSON.parse(document.getElementById("page-data").textContent);

function byId(id) {
  return document.getElementById(id);
}

function fixed(value, digits) {
  return value.toFixed(digits).replace("-", "−");
}

document.querySelectorAll(".needs-script").forEach((part) => (part.hidden = false));
