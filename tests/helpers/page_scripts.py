"""Questions to a page in a browser, as JavaScript: overflow, size of figures, contrast."""

OUTSIDE = """(() => {
  const width = document.documentElement.clientWidth, bad = [];
  document.querySelectorAll('details').forEach(d => d.open = true);
  const inside = (r, b) => r.left >= b.left - 1 && r.right <= b.right + 1;
  const page = {left: 0, right: width};
  for (const e of document.body.querySelectorAll('*')) {
    const r = e.getBoundingClientRect(), svg = e.closest('svg');
    if (!r.width || !r.height) continue;
    if (svg && svg !== e) {
      const b = svg.getBoundingClientRect();
      if (e.tagName === 'text' && !(inside(r, b) && r.top >= b.top - 1 && r.bottom <= b.bottom + 1))
        bad.push('clipped in its figure: ' + e.textContent);
    } else if (!(e.parentElement.closest('.scroll')) && !inside(r, page)) {
      bad.push('outside the page: ' + e.tagName + '.' + e.className + ' ' + r.left + ' ' + r.right);
    }
  }
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const node = texts.currentNode, range = document.createRange(), box = node.parentElement;
    if (!node.data.trim() || box.closest('svg, style')) continue;
    range.selectNodeContents(node);
    const r = range.getBoundingClientRect(), block = box.closest('td, th, p, div, li, h1, h2, pre');
    const scrolls = box.closest('.scroll, pre');
    if (r.width && block && !scrolls && !inside(r, block.getBoundingClientRect()))
      bad.push('text outside its box: ' + node.data);
  }
  return bad;
})()"""

FIGURES = """[...document.querySelectorAll('figure svg')]
  .filter(s => s.getBoundingClientRect().width)
  .map(s => ({
    scrolls: !!s.closest('.scroll'),
    label: s.getAttribute('aria-label'),
    text: Math.min(...[...s.querySelectorAll('text')].map(t => t.getBoundingClientRect().height)),
  }))"""

CONTRAST = """(() => {
  const parse = c => (c.match(/[\\d.]+/g) || []).map(Number);
  const over = (top, under) => {
    const a = top.length > 3 ? top[3] : 1;
    return [0, 1, 2].map(k => a * top[k] + (1 - a) * under[k]);
  };
  const light = c => {
    const [r, g, b] = c.map(v => v / 255).map(
      v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = e => {
    if (!e) return [255, 255, 255];
    const own = parse(getComputedStyle(e).backgroundColor);
    return own.length > 3 && own[3] === 0 ? ground(e.parentElement)
      : over(own, own.length > 3 ? ground(e.parentElement) : [255, 255, 255]);
  };
  document.querySelectorAll('details').forEach(d => d.open = true);
  const found = [];
  for (const e of document.body.querySelectorAll('*')) {
    const own = [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim());
    const r = e.getBoundingClientRect(), svg = e.closest('svg'), style = getComputedStyle(e);
    if (!own || !r.width || (svg && svg.getAttribute('aria-label').startsWith('Tokens by length')))
      continue;  // the labels of that figure lie on its bars
    const back = ground(svg ? svg.parentElement : e);
    const text = over(parse(svg ? style.fill : style.color), back);
    const [a, b] = [light(text), light(back)].sort((x, y) => y - x);
    found.push({text: e.textContent.trim().slice(0, 60), ratio: (a + 0.05) / (b + 0.05)});
  }
  return found;
})()"""

GROUND = """getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)"""
