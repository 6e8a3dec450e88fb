// What appears under the pointer and the cursor keys; the page is whole without it.
"use strict";
(() => {
  const source = document.getElementById("data");
  const tip = document.getElementById("tip");
  const spoken = document.getElementById("spoken");
  addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((d) => { d.open = true; }));
  if (!source) return;
  const data = JSON.parse(source.textContent);
  const WRONG = data.statuses.indexOf("wrong");

  // Arrays are little-endian, as is every machine that browsers run on.
  const unpack = (text, Type) => {
    const raw = atob(text), bytes = new Uint8Array(raw.length);
    for (let i = 0; i < raw.length; i++) bytes[i] = raw.charCodeAt(i);
    return new Type(bytes.buffer);
  };
  const unpackAll = (packed) => ({
    place: unpack(packed.place, Uint32Array),
    gradient: unpack(packed.gradient, Float64Array),
    approximation: unpack(packed.approximation, Float64Array),
    status: unpack(packed.status, Uint8Array),
  });

  const nameOf = (block, place) => {
    const at = [];
    for (const size of [...data.shapes[block]].reverse()) {
      at.unshift(place % size);
      place = Math.floor(place / size);
    }
    return data.names[block] + (at.length ? `[${at.join(", ")}]` : "");
  };
  const figure = (value, digits = 8) =>
    Number.isFinite(value) ? String(Number(value.toPrecision(digits))).replace("e+", "e") : String(value);

  // [name, rows of (label, text)] for component k of unpacked arrays.
  const describe = (arrays, k, block) => {
    const g = arrays.gradient[k], approximation = arrays.approximation[k];
    const size = Math.abs(g) / 2 + Math.abs(approximation) / 2;
    const relative = g === approximation ? 0 : Math.min(1, Math.abs(g - approximation) / 2 / size);
    return [nameOf(block, arrays.place[k]), [
      ["dθ", figure(g)],
      ["dθ_approx", figure(approximation)],
      ["ratio", g === 0 && approximation === 0 ? "0/0" : figure(g / approximation, 7)],
      ["difference", figure(relative, 3)],
      ["status", data.statuses[arrays.status[k]] ?? "not checked"],
    ]];
  };

  const show = ([name, rows], x, y) => {
    const title = document.createElement("b"), list = document.createElement("dl");
    title.textContent = name;
    for (const [label, text] of rows) {
      const dt = document.createElement("dt"), dd = document.createElement("dd");
      dt.textContent = label;
      dd.textContent = text;
      list.append(dt, dd);
    }
    tip.replaceChildren(title, list);
    tip.hidden = false;
    const { width, height } = tip.getBoundingClientRect();
    const right = document.documentElement.clientWidth;
    const left = x + 16 + width > right ? x - 16 - width : x + 16;
    tip.style.left = `${Math.max(4, Math.min(left, right - width - 4))}px`;
    tip.style.top = `${Math.max(4, y + 16 + height > innerHeight ? y - 16 - height : y + 16)}px`;
  };
  const hide = () => { tip.hidden = true; };

  for (const field of document.querySelectorAll("[data-grid]")) {
    const block = Number(field.dataset.grid), grid = data.grids[block];
    const [height, width] = grid.cells, cursor = field.querySelector(".cursor");
    let arrays = null, row = 0, column = 0;
    const load = () => {
      arrays ??= { ...unpackAll(grid), wrong: unpack(grid.wrong, Uint32Array) };
      return arrays;
    };
    const at = (r, c) => {
      const k = r * width + c;
      if (load().status[k] >= data.statuses.length) {
        return ["not checked", [["cell", `${r + 1}, ${c + 1} of ${height} × ${width}`]]];
      }
      const [name, rows] = describe(arrays, k, block);
      if (grid.cell[0] * grid.cell[1] > 1) {
        rows.push(["in this cell", `${arrays.wrong[k]} wrong of ${grid.cell[0]}×${grid.cell[1]}`]);
      }
      return [name, rows];
    };
    const mark = (r, c) => {
      [row, column] = [r, c];
      cursor.hidden = false;
      cursor.style.cssText = `left:${100 * (c + 0.5) / width}%;top:${100 * (r + 0.5) / height}%;width:${100 / width}%;height:${100 / height}%`;
    };
    const point = (event) => {
      const box = field.getBoundingClientRect();
      const r = Math.floor((event.clientY - box.top) / box.height * height);
      const c = Math.floor((event.clientX - box.left) / box.width * width);
      mark(Math.max(0, Math.min(height - 1, r)), Math.max(0, Math.min(width - 1, c)));
      show(at(row, column), event.clientX, event.clientY);
    };
    const leave = () => { cursor.hidden = true; hide(); };
    const nextWrong = () => {
      const count = height * width, status = load().status;
      for (let step = 1; step <= count; step++) {
        const k = (row * width + column + step) % count;
        if (status[k] === WRONG) return [Math.floor(k / width), k % width];
      }
      return [row, column];
    };
    const speak = () => {
      const [name, rows] = at(row, column), box = field.getBoundingClientRect();
      show([name, rows], box.left + (column + 0.5) / width * box.width, box.top + (row + 0.5) / height * box.height);
      spoken.textContent = `${name}: ${rows.map((pair) => pair.join(" ")).join(", ")}`;
    };
    field.addEventListener("pointermove", point);
    field.addEventListener("pointerdown", point);
    field.addEventListener("pointerleave", leave);
    field.addEventListener("blur", leave);
    field.addEventListener("keydown", (event) => {
      const moves = {
        ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1],
        PageUp: [-10, 0], PageDown: [10, 0],
      };
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      if (event.key === "Escape") return leave();
      if (event.key === "Home") mark(row, 0);
      else if (event.key === "End") mark(row, width - 1);
      else if (event.key.toLowerCase() === "w") mark(...nextWrong());
      else if (moves[event.key]) {
        const [down, right] = moves[event.key];
        mark(Math.max(0, Math.min(height - 1, row + down)), Math.max(0, Math.min(width - 1, column + right)));
      } else return;
      event.preventDefault();
      speak();
    });
  }

  // The point nearest to the pointer, in a chart's own units.
  let points = null;
  const REACH = 14;
  for (const chart of document.querySelectorAll("svg[data-points]")) {
    const axis = (text) => {
      const [low, high, start, stop] = text.split(" ").map(Number);
      return (value) => {
        const decades = Math.max(low, Math.min(high, Math.log10(Math.abs(value))));
        return start + (decades - low) / (high - low) * (stop - start);
      };
    };
    const x = axis(chart.dataset.x), y = axis(chart.dataset.y), errors = chart.dataset.points === "errors";
    chart.addEventListener("pointermove", (event) => {
      points ??= { ...unpackAll(data.points), block: unpack(data.points.block, Uint16Array) };
      const here = new DOMPoint(event.clientX, event.clientY).matrixTransform(chart.getScreenCTM().inverse());
      let best = -1, least = REACH ** 2;
      for (let k = points.status.length - 1; k >= 0; k--) {
        const g = points.gradient[k], approximation = points.approximation[k];
        const distance = (x(approximation) - here.x) ** 2 + (y(errors ? g - approximation : g) - here.y) ** 2;
        if (distance < least) [best, least] = [k, distance];
      }
      if (best < 0) hide();
      else show(describe(points, best, points.block[best]), event.clientX, event.clientY);
    });
    chart.addEventListener("pointerleave", hide);
  }
  addEventListener("scroll", hide, { passive: true });
})();
