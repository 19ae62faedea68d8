/* Search, zoom and keyboard for the flame graph. The drawing is complete without it. */
(function () {
  'use strict';
  var SVG = 'http://www.w3.org/2000/svg', HTML = 'http://www.w3.org/1999/xhtml';
  var script = document.currentScript;
  var root = (script && script.ownerSVGElement) || document.documentElement;
  var graph = root.querySelector('#g'), head = root.querySelector('#h'), info = root.querySelector('#i');
  var HINT = 'Click or Enter: zoom \u00b7 arrows: move \u00b7 / or Ctrl-F: search \u00b7 n: next match \u00b7 Esc: reset';
  var frames = [], last = [], zoomed, current, matches = [], charWidth = 7;

  Array.prototype.forEach.call(graph.children, function (el, index) {
    var title = el.querySelector('title').textContent.split('\n');
    var f = {
      el: el, index: index, text: el.querySelector('text'),
      x: parseFloat(el.getAttribute('x')), w: parseFloat(el.getAttribute('width')),
      depth: el.getAttribute('y') / 18, label: title[0], about: title[1],
      samples: parseInt(title[1].replace(/,/g, ''), 10), children: []
    };
    f.chars = /[^\x00-\x7f]/.test(f.label) ? Array.from(f.label) : f.label;
    f.parent = last[f.depth - 1] || null;
    if (f.parent) f.parent.children.push(f);
    last[f.depth] = f;
    el.setAttribute('role', 'treeitem');
    el.setAttribute('aria-level', f.depth + 1);
    el.setAttribute('aria-label', f.label + ', ' + f.about);
    el.setAttribute('tabindex', '-1');
    frames.push(f);
    el.frame = f;
  });
  if (!frames.length) return;

  function html(name, attributes, parent) {
    var el = document.createElementNS(HTML, name);
    Object.keys(attributes).forEach(function (k) { el.setAttribute(k, attributes[k]); });
    parent.appendChild(el);
    return el;
  }

  var box = document.createElementNS(SVG, 'foreignObject');
  head.appendChild(box);
  var form = html('form', { role: 'search' }, box);
  var found = html('output', { 'aria-live': 'polite' }, form);
  var input = html('input', { type: 'search', placeholder: 'Search  /', 'aria-label': 'Search frames', spellcheck: 'false', autocomplete: 'off' }, form);
  var reset = html('button', { type: 'button', hidden: '' }, form);
  reset.textContent = 'Reset zoom';

  function within(f, z) {
    return f.depth >= z.depth && f.x >= z.x - 1e-6 && f.x + f.w <= z.x + z.w + 1e-3;
  }
  function above(f, z) {
    for (z = z.parent; z; z = z.parent) if (z === f) return true;
    return false;
  }
  function cut(f, px) {
    var n = Math.floor((px - 7) / charWidth);
    if (n < 2) return '';
    if (f.chars.length <= n) return f.label;
    var part = f.chars.slice(0, n - 1);
    return (typeof part === 'string' ? part : part.join('')) + '\u2026';
  }
  function place(f, width) {
    var up = above(f, zoomed), inside = up || within(f, zoomed);
    var x = up ? 0 : (f.x - zoomed.x) / zoomed.w * 100, w = up ? 100 : f.w / zoomed.w * 100;
    var label = inside ? cut(f, w * width / 100) : '';
    f.shown = inside;
    f.el.style.display = inside ? '' : 'none';
    f.el.classList.toggle('up', up);
    if (!inside) return;
    f.el.setAttribute('x', x + '%');
    f.el.setAttribute('width', w + '%');
    if (label && !f.text) {
      f.text = document.createElementNS(SVG, 'text');
      f.text.setAttribute('x', 4);
      f.text.setAttribute('y', 12.5);
      f.el.appendChild(f.text);
    }
    if (f.text) f.text.textContent = label;
  }
  function tell(f) {
    var text = f ? f.label + ' \u2014 ' + f.about : HINT;
    var room = Math.floor((root.getBoundingClientRect().width * 0.98 - boxWidth() - 16) / (f ? charWidth : 6.3));
    info.setAttribute('class', f ? '' : 'm');
    info.textContent = room < 12 ? '' : text.length <= room ? text : f
      ? f.label.slice(0, Math.max(1, room - f.about.length - 4)) + '\u2026 \u2014 ' + f.about
      : text.slice(0, room - 1) + '\u2026';
  }
  function boxWidth() {
    var width = root.getBoundingClientRect().width;
    return Math.min(width * 0.98, input.value || zoomed !== frames[0] ? 560 : 220);
  }
  function layout() {
    var width = root.getBoundingClientRect().width, b = boxWidth();
    box.setAttribute('x', width * 0.99 - b);
    box.setAttribute('y', info.getAttribute('y') - 19);
    box.setAttribute('width', b);
    box.setAttribute('height', 30);
    frames.forEach(function (f) { place(f, width * 0.98); });
    tell(null);
  }
  function remember() {
    var parts = [];
    if (input.value) parts.push('s=' + encodeURIComponent(input.value));
    if (zoomed !== frames[0]) parts.push('x=' + zoomed.index);
    try {
      history.replaceState(null, '', parts.length ? '#' + parts.join('&') : location.pathname + location.search);
    } catch (e) { /* documents without a URL of their own */ }
  }
  function zoom(f) {
    zoomed = f;
    reset.hidden = f === frames[0];
    layout();
    remember();
  }
  function search() {
    var want = input.value.toLowerCase(), sum = 0;
    matches = [];
    frames.forEach(function (f) {
      f.hit = want !== '' && f.parent !== null && f.label.toLowerCase().indexOf(want) >= 0;
      f.el.classList.toggle('hit', f.hit);
      f.under = f.parent !== null && (f.parent.hit || f.parent.under);
      if (f.hit) matches.push(f);
      if (f.hit && !f.under) sum += f.samples;
    });
    graph.classList.toggle('s', want !== '');
    found.textContent = want === '' ? '' : !matches.length ? 'No match'
      : matches.length + (matches.length === 1 ? ' frame, ' : ' frames, ') +
        (sum / frames[0].samples * 100).toFixed(sum * 100 < frames[0].samples * 10 ? 2 : 1) + ' % of samples';
    layout();
    remember();
  }
  function focus(f) {
    if (!f) return;
    if (!f.shown) zoom(frames[0]);
    if (current) current.el.setAttribute('tabindex', '-1');
    current = f;
    f.el.setAttribute('tabindex', '0');
    f.el.focus({ preventScroll: true });
    var box = f.el.getBoundingClientRect(), top = head.getBoundingClientRect().height;
    if (box.top < top) window.scrollBy(0, box.top - top - 18);
    else if (box.bottom > window.innerHeight) window.scrollBy(0, box.bottom - window.innerHeight + 18);
  }
  function beside(f, step) {
    for (var i = f.index + step; i >= 0 && i < frames.length; i += step)
      if (frames[i].depth === f.depth && frames[i].shown) return frames[i];
    return null;
  }
  function nextMatch(step) {
    var at = matches.indexOf(current);
    if (matches.length) focus(matches[(at + (at < 0 && step < 0 ? 0 : step) + matches.length) % matches.length]);
  }
  function widest(f) {
    return f.children.filter(function (c) { return c.shown; })
      .reduce(function (a, b) { return !a || b.w > a.w ? b : a; }, null);
  }
  function frameOf(event) {
    var el = event.target;
    while (el && el !== graph && !el.frame) el = el.parentNode;
    return (el && el.frame) || null;
  }

  graph.addEventListener('click', function (e) {
    var f = frameOf(e);
    if (f) { zoom(f); focus(f); tell(f); }
  });
  graph.addEventListener('mouseover', function (e) { tell(frameOf(e)); });
  graph.addEventListener('mouseleave', function () { tell(document.activeElement && document.activeElement.frame); });
  graph.addEventListener('focusin', function (e) { tell(frameOf(e)); });
  graph.addEventListener('focusout', function () { tell(null); });
  reset.addEventListener('click', function () { zoom(frames[0]); focus(frames[0]); });
  input.addEventListener('input', search);
  form.addEventListener('submit', function (e) { e.preventDefault(); nextMatch(1); });
  window.addEventListener('resize', layout);
  window.addEventListener('scroll', function () {
    head.setAttribute('transform', 'translate(0,' + Math.max(0, window.scrollY) + ')');
  });
  window.addEventListener('hashchange', restore);
  document.addEventListener('keydown', function (e) {
    var f = (document.activeElement && document.activeElement.frame) || null;
    var plain = !e.ctrlKey && !e.metaKey && !e.altKey, typing = e.target === input;
    if ((e.key === 'f' && (e.ctrlKey || e.metaKey) && !e.altKey) || (e.key === '/' && plain && !typing)) {
      input.focus();
      input.select();
    } else if (e.key === 'Escape') {
      if (input.value) { input.value = ''; search(); } else zoom(frames[0]);
      if (typing) focus(current || frames[0]);
    } else if (typing || !plain || e.target === reset) {
      return;
    } else if (e.key === 'Enter' || e.key === ' ') {
      if (f) { zoom(f); tell(f); }
    } else if (e.key === 'ArrowDown') focus(f ? widest(f) : frames[0]);
    else if (e.key === 'ArrowUp') focus(f ? f.parent : frames[0]);
    else if (e.key === 'ArrowLeft') focus(f ? beside(f, -1) : frames[0]);
    else if (e.key === 'ArrowRight') focus(f ? beside(f, 1) : frames[0]);
    else if (e.key === 'Home') focus(frames[0]);
    else if (e.key === 'n' || e.key === 'N') nextMatch(e.key === 'n' ? 1 : -1);
    else return;
    e.preventDefault();
  });
  /* #s=text&x=12: what is searched for and the frame zoomed to, so that a view can be sent. */
  function restore() {
    var values = {};
    location.hash.slice(1).split('&').forEach(function (part) {
      var at = part.indexOf('=');
      try { values[part.slice(0, at)] = decodeURIComponent(part.slice(at + 1)); } catch (e) { /* not ours */ }
    });
    zoomed = frames[/^\d+$/.test(values.x) ? values.x : 0] || frames[0];
    reset.hidden = zoomed === frames[0];
    input.value = values.s || '';
    search();
  }

  var probe = document.createElementNS(SVG, 'text');
  probe.textContent = 'mmmmmmmmmmmmmmmmmmmm';
  graph.appendChild(probe);
  charWidth = probe.getComputedTextLength() / 20 || charWidth;
  graph.removeChild(probe);
  graph.setAttribute('role', 'tree');
  graph.setAttribute('aria-label', 'Flame graph');
  current = frames[0];
  current.el.setAttribute('tabindex', '0');
  restore();
}());
