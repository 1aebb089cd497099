const root = document.documentElement;
const fail = message => { root.dataset.errors = (root.dataset.errors ? root.dataset.errors + "\n" : "") + message; };
window.addEventListener("error", event => fail(event.message));
window.addEventListener("unhandledrejection", event => fail(String(event.reason)));
for (const level of ["error", "warn"]) {
  const plain = console[level].bind(console);
  console[level] = (...words) => { fail(words.map(String).join(" ")); plain(...words); };
}
const specs = JSON.parse(document.getElementById("specs").textContent);
const options = { actions: false, renderer: "svg" };
Promise.all(Object.entries(specs).map(([id, spec]) => vegaEmbed("#" + id, spec, options)))
  .then(() => { root.dataset.drawn = Object.keys(specs).length; });
