"use strict";
// The page stands without this script; it makes the plots answer and lets members be chosen.
(() => {
  const root = document.documentElement;
  root.classList.add("js");

  function themeButton() {
    const button = document.querySelector("button.theme");
    const prefersDark = window.matchMedia("(prefers-color-scheme: dark)");
    const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : prefersDark.matches);
    const label = () => { button.textContent = isDark() ? "Light" : "Dark"; };
    button.addEventListener("click", () => {
      root.dataset.theme = isDark() ? "light" : "dark";
      label();
    });
    prefersDark.addEventListener("change", label);
    label();
  }

  const make = (name, attributes = {}, text) => {
    const element = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    if (text !== undefined) element.textContent = text;
    return element;
  };

  const bytesOf = (base64) => Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));

  // heat is easier to see over grey
  function greyPixels(photo, canvas) {
    [canvas.width, canvas.height] = [photo.naturalWidth, photo.naturalHeight];
    const pen = canvas.getContext("2d", { willReadFrequently: true });
    pen.drawImage(photo, 0, 0);
    const picture = pen.getImageData(0, 0, canvas.width, canvas.height);
    for (let i = 0; i < picture.data.length; i += 4) {
      const [red, green, blue] = picture.data.subarray(i, i + 3);
      picture.data.fill(0.299 * red + 0.587 * green + 0.114 * blue, i, i + 3);
    }
    return picture;
  }

  // how near the pointer must be to a member, in pixels of the screen
  const REACH = 30;

  class Explorer {
    constructor(element, view) {
      this.element = element;
      this.view = view;
      this.svg = element.querySelector(".chart");
      this.tooltip = element.querySelector(".tooltip");
      this.across = view.across;
      this.up = view.up;
      this.selected = view.knee;
      this.cells = bytesOf(view.mask.cells);
      this.heat = view.heat ? bytesOf(view.heat.heat) : null;
      this.points = [...this.svg.querySelectorAll(".points .point")];
      this.ring = this.svg.querySelector(".ring");
      this.halo = make("circle", { class: "halo", r: 7.5 });
      this.drop = make("line", { class: "drop" });
      const front = this.svg.querySelector(".points");
      front.before(this.drop);
      front.after(this.halo);
      this.makeAccessible(front);
      this.makeCanvases();
      this.listen();
      this.place();
      this.select(this.selected);
    }

    // ---- the plot

    makeAccessible(front) {
      this.svg.setAttribute("role", "group");
      front.setAttribute("role", "listbox");
      front.setAttribute("aria-label", "Members, smallest first");
      this.points.forEach((point, member) => {
        // the browser's own tooltip would lie over ours
        point.querySelector("title").remove();
        point.setAttribute("role", "option");
        point.setAttribute("aria-label", this.view.descriptions[member]);
      });
    }

    listen() {
      const find = (name) => this.element.querySelector(name);
      find(".choose-up").addEventListener("change", (event) => {
        this.up = Number(event.target.value);
        this.place();
      });
      find(".choose-across").addEventListener("change", (event) => {
        this.across = Number(event.target.value);
        this.place();
      });
      const tests = find(".show-tests input");
      if (tests) {
        tests.addEventListener("change", () => this.element.classList.toggle("no-tests", !tests.checked));
      }
      this.svg.addEventListener("pointermove", (event) => this.hover(this.nearest(event)));
      this.svg.addEventListener("pointerleave", () => this.hover(null));
      this.svg.addEventListener("click", (event) => {
        const member = this.nearest(event);
        if (member !== null) this.select(member);
      });
      this.svg.addEventListener("keydown", (event) => this.press(event));
      this.svg.addEventListener("focusin", (event) => {
        const point = event.target.closest(".point");
        // focus by a click needs no tooltip: the pointer is there already
        if (point && point.matches(":focus-visible")) this.hover(Number(point.dataset.member));
      });
      this.svg.addEventListener("focusout", () => this.hover(null));
    }

    // arrow keys go by the horizontal axis, past members without a place on it
    press(event) {
      const point = event.target.closest(".point");
      if (!point) return;
      const member = Number(point.dataset.member);
      const order = this.order;
      const at = order.indexOf(member);
      const goals = {
        ArrowRight: order[at + 1], ArrowUp: order[at + 1], ArrowLeft: order[at - 1], ArrowDown: order[at - 1],
        Home: order[0], End: order[order.length - 1],
      };
      if (event.key in goals) {
        event.preventDefault();
        if (goals[event.key] !== undefined) this.focus(goals[event.key]);
      } else if (event.key === "Enter" || event.key === " ") {
        event.preventDefault();
        this.select(member);
      } else if (event.key === "Escape") {
        this.hover(null);
      }
    }

    focus(member) {
      this.points.forEach((point, i) => point.setAttribute("tabindex", i === member ? "0" : "-1"));
      this.points[member].focus({ focusVisible: true });
    }

    at(member, places = this.view.scales[this.up].places) {
      const x = this.view.scales[this.across].places[member];
      const y = places[member];
      if (x === null || y === null) return null;
      const [left, top, width, height] = this.view.box;
      return [left + x * width, top + (1 - y) * height];
    }

    move(element, place) {
      element.style.display = place ? "" : "none";
      element.removeAttribute("display");
      if (place) element.style.transform = `translate(${place[0]}px, ${place[1]}px)`;
    }

    place() {
      const up = this.view.scales[this.up];
      const across = this.view.scales[this.across];
      const bySize = this.across === this.view.across;
      const stairs = bySize ? up.stairs : [];
      const onStairs = new Set(stairs);
      const dense = this.points.length - 1;
      this.places = this.points.map((_, member) => this.at(member));
      this.points.forEach((point, member) => {
        this.move(point, this.places[member]);
        if (member !== dense) {
          point.classList.toggle("stair", onStairs.has(member));
          point.classList.toggle("other", !onStairs.has(member));
        }
      });
      this.order = this.places.map((place, member) => (place ? member : -1)).filter((member) => member >= 0);
      if (!bySize) this.order.sort((one, other) => this.places[one][0] - this.places[other][0]);
      this.svg.querySelectorAll(".test").forEach((circle, member) => {
        this.move(circle, up.test ? this.at(member, up.test) : null);
      });
      this.move(this.ring, this.places[this.view.knee]);
      this.svg.querySelector("path.stairs").setAttribute("d", stairs
        .map((member) => this.places[member]).filter((place) => place)
        .map(([x, y], i) => (i ? `H${x}V${y}` : `M${x} ${y}`)).join(""));
      this.drawTicks(across, up);
      this.mark();
    }

    drawTicks(across, up) {
      const [left, top, width, height] = this.view.box;
      const bottom = top + height;
      this.svg.querySelector(".ticks.across").replaceChildren(...across.ticks.flatMap(([place, label]) => {
        const x = left + place * width;
        return [make("line", { x1: x, x2: x, y1: top, y2: bottom }), make("text", { x, y: bottom + 22 }, label)];
      }));
      this.svg.querySelector(".ticks.up").replaceChildren(...up.ticks.flatMap(([place, label]) => {
        const y = top + (1 - place) * height;
        return [make("line", { x1: left, x2: left + width, y1: y, y2: y }), make("text", { x: left - 8, y }, label)];
      }));
      this.svg.querySelector(".axis.across").textContent = across.title;
      this.svg.querySelector(".axis.up").textContent = up.title;
      const level = this.svg.querySelector(".level");
      const dense = this.places[this.points.length - 1];
      if (level) level.style.display = dense ? "" : "none";
      if (level && dense) {
        level.setAttribute("y1", dense[1]);
        level.setAttribute("y2", dense[1]);
      }
    }

    nearest(event) {
      const matrix = this.svg.getScreenCTM();
      let found = null;
      let least = REACH;
      this.places.forEach((place, member) => {
        if (!place) return;
        const x = matrix.a * place[0] + matrix.e - event.clientX;
        const y = matrix.d * place[1] + matrix.f - event.clientY;
        const distance = Math.hypot(x, y);
        if (distance < least) [found, least] = [member, distance];
      });
      return found;
    }

    hover(member) {
      const tooltip = this.tooltip;
      if (member === null || !this.places[member]) {
        tooltip.hidden = true;
        return;
      }
      const name = document.createElement("strong");
      name.textContent = this.view.labels[member];
      tooltip.replaceChildren(name, this.numbers(member));
      tooltip.dataset.member = member;
      tooltip.hidden = false;
      const area = tooltip.parentElement;
      const scale = this.svg.getBoundingClientRect().width / this.svg.viewBox.baseVal.width;
      const [x, y] = this.places[member].map((value) => value * scale);
      const gap = 14;
      const { offsetWidth: width, offsetHeight: height } = tooltip;
      const right = x + gap + width <= area.clientWidth;
      const left = x - gap - width >= 0;
      // to the lower right of its point, where a front has no others; on the other side, or above, at the edges
      const lowest = area.clientHeight - height;
      const covers = !right && !left && y + gap > lowest;
      tooltip.style.left = `${right ? x + gap : left ? x - gap - width : (area.clientWidth - width) / 2}px`;
      tooltip.style.top = `${covers ? y - gap - height : Math.max(0, Math.min(y + gap, lowest))}px`;
    }

    numbers(member) {
      const list = document.createElement("dl");
      for (const column of this.view.columns.filter((_, i) => this.view.in_tooltip[i])) {
        const term = document.createElement("dt");
        const value = document.createElement("dd");
        term.textContent = column.label;
        value.textContent = column.texts[member];
        list.append(term, value);
      }
      return list;
    }

    // ---- the panel

    select(member) {
      this.selected = member;
      const view = this.view;
      this.points.forEach((point, i) => {
        point.setAttribute("aria-selected", String(i === member));
        point.setAttribute("tabindex", i === member ? "0" : "-1");
      });
      this.element.querySelector(".selected").textContent = view.labels[member];
      this.element.querySelector(".kept").textContent = view.mask.summaries[member];
      this.element.querySelectorAll(".numbers dd").forEach((value, i) => {
        value.textContent = view.columns[i].texts[member];
      });
      this.drawMask(member);
      this.element.querySelectorAll("[data-confusion]").forEach((table) => {
        this.fillConfusion(table, view.confusions[Number(table.dataset.confusion)], member);
      });
      this.images.forEach((_, number) => this.drawHeat(member, number));
      this.mark();
    }

    mark() {
      const place = this.places[this.selected];
      const tests = this.view.scales[this.up].test;
      const tested = tests ? this.at(this.selected, tests) : null;
      this.move(this.halo, place);
      this.svg.querySelectorAll(".test").forEach((circle, i) => {
        circle.classList.toggle("of-selected", i === this.selected);
      });
      this.drop.style.display = place && tested ? "" : "none";
      if (place && tested) {
        for (const [key, value] of [["x1", place[0]], ["x2", place[0]], ["y1", place[1]], ["y2", tested[1]]]) {
          this.drop.setAttribute(key, value);
        }
      }
    }

    // 0 to full
    level(member, cell) {
      const { depth, stride, full } = this.view.mask;
      const bit = cell * depth;
      const byte = this.cells[member * stride + (bit >> 3)];
      const value = (byte >> (8 - depth - (bit & 7))) & ((1 << depth) - 1);
      return depth === 1 ? value * full : value;
    }

    drawMask(member) {
      const { full, shades } = this.view.mask;
      let start = 0;
      const figures = this.element.querySelectorAll(".masks .mask");
      this.view.mask.groups.forEach((group, number) => {
        const paths = Array.from({ length: shades + 1 }, () => []);
        const kept = [];
        for (let cell = 0; cell < group.count; cell += 1) {
          const level = this.level(member, start + cell);
          if (!level) continue;
          kept.push(cell);
          const place = `${cell % group.columns} ${Math.floor(cell / group.columns)}`;
          paths[Math.ceil((level * shades) / full)].push(`M${place}h.86v.86h-.86z`);
        }
        const figure = figures[number];
        for (let shade = 1; shade <= shades; shade += 1) {
          figure.querySelector(`.shade${shade}`).setAttribute("d", paths[shade].join(""));
        }
        figure.querySelector(".grid").setAttribute("aria-label", this.view.mask.summaries[member]);
        const numbers = figure.querySelector(".kept-numbers");
        if (numbers) numbers.textContent = kept.join(", ") || "none";
        start += group.count;
      });
    }

    fillConfusion(table, confusion, member) {
      table.caption.textContent = confusion.captions[member];
      const body = table.tBodies[0];
      if (!confusion.counts) {
        body.replaceChildren(...confusion.largest[member].map(([truth, guess, rows]) => {
          const line = document.createElement("tr");
          const head = document.createElement("th");
          head.scope = "row";
          head.textContent = this.view.classes[truth];
          line.append(head);
          line.insertCell().textContent = this.view.classes[guess];
          line.insertCell().textContent = rows;
          return line;
        }));
        return;
      }
      const counts = confusion.counts[member];
      const n = this.view.classes.length;
      for (let truth = 0; truth < n; truth += 1) {
        const row = counts.slice(truth * n, (truth + 1) * n);
        const total = Math.max(row.reduce((sum, count) => sum + count, 0), 1);
        row.forEach((count, guess) => {
          const cell = body.rows[truth].cells[guess + 1];
          const level = Math.ceil((count * this.view.confusion_shades) / total);
          cell.textContent = count;
          cell.className = level ? `${truth === guess ? "hit" : "miss"}${level}` : "none";
        });
      }
    }

    // ---- heat maps

    makeCanvases() {
      this.images = [];
      if (!this.heat) return;
      this.element.querySelectorAll(".thumbnails img").forEach((still, number) => {
        const canvas = document.createElement("canvas");
        canvas.setAttribute("role", "img");
        const caption = still.parentElement.querySelector("figcaption");
        const image = { canvas, caption, name: caption.title, grey: null };
        this.images.push(image);
        const photo = new Image();
        photo.addEventListener("load", () => {
          image.grey = greyPixels(photo, canvas);
          still.replaceWith(canvas);
          this.drawHeat(this.selected, number);
        });
        photo.src = this.view.heat.photos[number];
      });
    }

    drawHeat(member, number) {
      const { rows, columns, colors, alpha, captions } = this.view.heat;
      const { canvas, caption, name, grey } = this.images[number];
      const text = captions[member][number];
      caption.textContent = text;
      canvas.setAttribute("aria-label", `${name}: ${text}`);
      if (!grey) return;
      const size = rows * columns;
      const start = (member * this.images.length + number) * size;
      const coarse = document.createElement("canvas");
      [coarse.width, coarse.height] = [columns, rows];
      const pixels = new ImageData(columns, rows);
      for (let i = 0; i < size; i += 1) {
        const heat = this.heat[start + i];
        const color = colors[Math.round((heat / 255) * (colors.length - 1))];
        pixels.data.set([...color, Math.round(alpha * heat)], 4 * i);
      }
      coarse.getContext("2d").putImageData(pixels, 0, 0);
      const pen = canvas.getContext("2d");
      pen.putImageData(grey, 0, 0);
      pen.imageSmoothingQuality = "high";
      pen.drawImage(coarse, 0, 0, canvas.width, canvas.height);
    }
  }

  themeButton();
  const data = JSON.parse(document.getElementById("report-data").textContent);
  for (const view of data.views) new Explorer(document.getElementById(`${view.key}-explorer`), view);
})();
