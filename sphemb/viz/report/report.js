"use strict";

// Points on a sphere that a person can turn. The page holds, as JSON, a list of scenes:
// {name, note, steps, number, points: base64 of int16 [steps, number, 3],
//  colors: {name: base64 of uint8 [number, 3]}}.
(function () {
  const scenes = JSON.parse(document.getElementById("spheres").textContent);
  const canvas = document.getElementById("sphere");
  if (!scenes.length || !canvas) {
    return;
  }
  const context = canvas.getContext("2d");
  const choice = document.getElementById("scene");
  const coloring = document.getElementById("coloring");
  const slider = document.getElementById("step");
  const progress = document.getElementById("progress");
  const note = document.getElementById("scene-note");
  const play = document.getElementById("play");

  function bytes(text) {
    return Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  }

  for (const scene of scenes) {
    const values = new DataView(bytes(scene.points).buffer);
    scene.points = new Float32Array(3 * scene.number * scene.steps);
    for (let i = 0; i < scene.points.length; i++) {
      scene.points[i] = values.getInt16(2 * i, true) / 32767;
    }
    for (const name of Object.keys(scene.colors)) {
      scene.colors[name] = bytes(scene.colors[name]);
    }
    choice.add(new Option(scene.name));
  }

  const view = { turn: 0.6, tilt: 0.35, zoom: 1, shown: 0 };
  let scene = scenes[0];
  let waiting = false;
  let timer = 0;

  function toView(x, y, z) {
    const along = Math.cos(view.turn) * x - Math.sin(view.turn) * y;
    const away = Math.sin(view.turn) * x + Math.cos(view.turn) * y;
    const up = Math.cos(view.tilt) * z + Math.sin(view.tilt) * away;
    const depth = Math.cos(view.tilt) * away - Math.sin(view.tilt) * z;
    return [along, up, depth]; // depth grows away from the eye
  }

  function drawWires(place, radius) {
    context.lineWidth = 1;
    context.strokeStyle = "#88888870";
    context.beginPath();
    context.arc(...place(0, 0), radius, 0, 2 * Math.PI);
    context.stroke();
    for (let k = 0; k < 12; k++) {
      for (const meridian of [true, false]) {
        if (!meridian && k > 4) {
          continue;
        }
        for (const behind of [true, false]) {
          context.strokeStyle = behind ? "#88888828" : "#88888870";
          context.beginPath();
          let pen = false;
          for (let i = 0; i <= 60; i++) {
            const a = (i / 60) * Math.PI * (meridian ? 1 : 2);
            const b = meridian ? (k * Math.PI) / 6 : ((k + 1) * Math.PI) / 6;
            const [around, down] = meridian ? [b, a] : [a, b];
            const [x, y, depth] = toView(
              Math.cos(around) * Math.sin(down),
              Math.sin(around) * Math.sin(down),
              Math.cos(down)
            );
            if (depth > 0 !== behind) {
              pen = false;
              continue;
            }
            const [px, py] = place(x, y);
            pen ? context.lineTo(px, py) : context.moveTo(px, py);
            pen = true;
          }
          context.stroke();
        }
      }
    }
  }

  function draw() {
    waiting = false;
    const ratio = window.devicePixelRatio || 1;
    const width = canvas.clientWidth;
    const height = canvas.clientHeight;
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    const radius = 0.46 * Math.min(width, height) * view.zoom;
    const place = (x, y) => [width / 2 + radius * x, height / 2 - radius * y];
    drawWires(place, radius);

    // Between two steps the points are shown on their way.
    const first = Math.min(Math.floor(view.shown), scene.steps - 1);
    const next = Math.min(first + 1, scene.steps - 1);
    const share = view.shown - first;
    const size = 3 * scene.number;
    const colors = scene.colors[coloring.value];
    const dots = [];
    for (let i = 0; i < scene.number; i++) {
      const at = [0, 1, 2].map(
        (k) =>
          (1 - share) * scene.points[first * size + 3 * i + k] +
          share * scene.points[next * size + 3 * i + k]
      );
      const length = Math.hypot(...at) || 1;
      dots.push([...toView(...at.map((value) => value / length)), i]);
    }
    dots.sort((a, b) => b[2] - a[2]);
    for (const [x, y, depth, i] of dots) {
      const [px, py] = place(x, y);
      context.globalAlpha = depth > 0.05 ? 0.3 : 0.9;
      context.fillStyle = `rgb(${colors.subarray(3 * i, 3 * i + 3).join(",")})`;
      context.beginPath();
      context.arc(px, py, 2.6 * Math.sqrt(view.zoom), 0, 2 * Math.PI);
      context.fill();
    }
    context.globalAlpha = 1;
  }

  function redraw() {
    if (!waiting) {
      waiting = true;
      window.requestAnimationFrame(draw);
    }
  }

  function approach() {
    // The slider jumps; the points follow in a third of a second.
    const wanted = Number(slider.value);
    const left = wanted - view.shown;
    view.shown = Math.abs(left) < 0.02 ? wanted : view.shown + 0.2 * left;
    redraw();
    if (view.shown !== wanted) {
      window.requestAnimationFrame(approach);
    }
  }

  function tell() {
    progress.textContent = `step ${slider.value} of ${scene.steps - 1}`;
    approach();
  }

  function choose() {
    scene = scenes[Math.max(0, choice.selectedIndex)];
    const before = coloring.value;
    coloring.replaceChildren(
      ...Object.keys(scene.colors).map((name) => new Option(name))
    );
    if (before in scene.colors) {
      coloring.value = before;
    }
    slider.max = String(scene.steps - 1);
    slider.value = String(Math.min(Number(slider.value), scene.steps - 1));
    document.getElementById("steps").hidden = scene.steps < 2;
    note.textContent = scene.note;
    view.shown = Number(slider.value);
    tell();
  }

  function stop() {
    window.clearInterval(timer);
    timer = 0;
    play.textContent = "play";
  }

  play.addEventListener("click", () => {
    if (timer) {
      stop();
      return;
    }
    play.textContent = "stop";
    timer = window.setInterval(() => {
      slider.value = String((Number(slider.value) + 1) % scene.steps);
      tell();
    }, 700);
  });
  slider.addEventListener("input", () => {
    stop();
    tell();
  });
  choice.addEventListener("change", choose);
  coloring.addEventListener("change", redraw);

  function turn(right, down) {
    view.turn += right;
    view.tilt = Math.max(-1.57, Math.min(1.57, view.tilt + down));
    redraw();
  }

  // Mouse, pen and touch alike.
  let held = null;
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    held = [event.clientX, event.clientY];
  });
  canvas.addEventListener("pointermove", (event) => {
    if (held) {
      turn((event.clientX - held[0]) / 150, (event.clientY - held[1]) / 150);
      held = [event.clientX, event.clientY];
    }
  });
  for (const end of ["pointerup", "pointercancel"]) {
    canvas.addEventListener(end, () => (held = null));
  }
  canvas.addEventListener("keydown", (event) => {
    const turns = {
      ArrowLeft: [-0.1, 0],
      ArrowRight: [0.1, 0],
      ArrowUp: [0, -0.1],
      ArrowDown: [0, 0.1],
    };
    if (event.key in turns) {
      turn(...turns[event.key]);
      event.preventDefault();
    }
  });
  canvas.addEventListener(
    "wheel",
    (event) => {
      view.zoom = Math.max(0.5, Math.min(6, view.zoom * Math.exp(-event.deltaY / 800)));
      redraw();
      event.preventDefault();
    },
    { passive: false }
  );
  window.addEventListener("resize", redraw);
  choose();
})();
