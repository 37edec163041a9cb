"""Scenes: small procedural pictures with known factors and simulated opinions."""

from __future__ import annotations

import colorsys
import json
import math
import os
import zlib
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from scipy.special import ndtr

from aes_r1.data.sample import Sample
from aes_r1.prompts import DIMENSIONS

SIZE = 192
CORRELATION = 0.15
HUES = ("red", "orange", "yellow", "green", "cyan", "blue", "purple", "pink")
SUBJECTS = ("house", "tree", "figure", "boat")


def factors_of(rng):
    common = rng.standard_normal()
    own = rng.standard_normal(5)
    z = math.sqrt(CORRELATION) * common + math.sqrt(1 - CORRELATION) * own
    return dict(zip(DIMENSIONS, ndtr(z).tolist(), strict=True))


def _rgb(h, s, v):
    return np.array(colorsys.hsv_to_rgb(h % 1.0, min(1, max(0, s)), min(1, max(0, v)))) * 255


def render_scene(name, index, seed):
    rng = np.random.default_rng([zlib.crc32(name.encode()), seed, index])
    f = factors_of(rng)
    light, mood, comp, color, expo = (f[d] for d in DIMENSIONS)
    shifted = name == "scenes_shifted"
    w, h = (224, 160) if shifted else (SIZE, SIZE)
    S = 2
    W, H = w * S, h * S
    base = rng.random()
    accent = base + 0.5 + rng.normal(0, 0.03)
    sat = 0.12 + 0.75 * color
    def tone(h_, s_, v_):
        if rng.random() > color + 0.1:  # clash
            h_ = rng.random()
        return _rgb(h_, s_ * sat, v_)
    sky_top, sky_low = tone(base, 0.9, 0.75), tone(base + 0.04, 0.6, 0.95)
    ground = tone(base + 0.08, 0.9, 0.55)
    subject_color = tone(accent, 1.2, 0.8)
    tilt = (1 - comp) * rng.choice([-1, 1]) * 24 * rng.uniform(0.75, 1)
    horizon = rng.uniform(0.52, 0.62)
    ang = math.radians(tilt)
    ca, sa = math.cos(ang), math.sin(ang)
    im = Image.new("RGB", (W, H))
    d = ImageDraw.Draw(im)
    def T(points):
        return [(W / 2 + ca * (x - 0.5) * W - sa * (y - 0.5) * H, H / 2 + sa * (x - 0.5) * W + ca * (y - 0.5) * H) for x, y in points]
    def poly(points, c):
        d.polygon(T(points), fill=tuple(int(v) for v in np.clip(c, 0, 255)))
    def disc(x, y, r, c, ry=None):
        t = np.linspace(0, 2 * math.pi, 20)
        poly([(x + r * math.cos(a) * H / W, y + (ry or r) * math.sin(a)) for a in t], c)
    bands = 8
    for b in range(bands):
        c = sky_top + (sky_low - sky_top) * b / bands
        poly([(-0.6, -0.6 if b == 0 else horizon * b / bands), (1.6, -0.6 if b == 0 else horizon * b / bands), (1.6, horizon), (-0.6, horizon)], c)
    poly([(-0.6, horizon), (1.6, horizon), (1.6, 1.6), (-0.6, 1.6)], ground)
    for k in range(4):  # furrows and streaks run with the horizon, so that a tilt shows everywhere
        y = horizon + 0.06 + 0.11 * k
        poly([(-0.6, y), (1.6, y), (1.6, y + 0.018), (-0.6, y + 0.018)], ground * 0.72)
        y = 0.08 + 0.13 * k
        if y < horizon - 0.05:
            poly([(-0.6, y), (1.6, y), (1.6, y + 0.012), (-0.6, y + 0.012)], np.minimum(sky_low * 1.15, 255))
    side = rng.choice([-1, 1])
    strength = light
    # light
    if strength > 0.25:
        disc(0.5 + side * 0.38, 0.14, 0.05 + 0.07 * strength, np.array([255, 245, 190]))
    third = 1 / 3 if rng.random() < 0.5 else 2 / 3
    edge = 0.06 if third < 0.5 else 0.94
    sx = edge + (third - edge) * min(1, comp * 1.2) + rng.normal(0, 0.015)
    foot = horizon + 0.18
    size = 0.34
    # cast shadow
    if strength > 0.15:
        length = 0.15 + 0.45 * strength
        poly([(sx - 0.1, foot), (sx + 0.1, foot), (sx + 0.1 - side * length, foot + 0.14), (sx - 0.1 - side * length, foot + 0.14)], ground * (1 - 0.85 * strength))
    kind = SUBJECTS[rng.integers(len(SUBJECTS))]
    dark, lit = subject_color * (1 - 0.75 * strength), np.clip(subject_color * (1 + 0.25 * strength), 0, 255)
    left, right = (lit, dark) if side < 0 else (dark, lit)
    if kind == "house":
        poly([(sx - 0.12, foot - 0.2), (sx, foot - 0.2), (sx, foot), (sx - 0.12, foot)], left)
        poly([(sx, foot - 0.2), (sx + 0.12, foot - 0.2), (sx + 0.12, foot), (sx, foot)], right)
        poly([(sx - 0.15, foot - 0.2), (sx, foot - size), (sx, foot - 0.2)], left * 0.8)
        poly([(sx, foot - size), (sx + 0.15, foot - 0.2), (sx, foot - 0.2)], right * 0.8)
    elif kind == "tree":
        poly([(sx - 0.02, foot - 0.15), (sx + 0.02, foot - 0.15), (sx + 0.02, foot), (sx - 0.02, foot)], dark * 0.7)
        disc(sx, foot - 0.24, 0.13, left)
        poly([(sx, foot - 0.37), (sx + 0.09, foot - 0.33), (sx + 0.13, foot - 0.24), (sx + 0.09, foot - 0.15), (sx, foot - 0.11)], right)
    elif kind == "figure":
        disc(sx, foot - 0.29, 0.05, lit)
        poly([(sx - 0.06, foot - 0.23), (sx, foot - 0.23), (sx, foot), (sx - 0.08, foot)], left)
        poly([(sx, foot - 0.23), (sx + 0.06, foot - 0.23), (sx + 0.08, foot), (sx, foot)], right)
    else:
        poly([(sx - 0.16, foot - 0.07), (sx + 0.16, foot - 0.07), (sx + 0.1, foot), (sx - 0.1, foot)], dark)
        poly([(sx - 0.12, foot - 0.1), (sx, foot - size), (sx, foot - 0.1)], left)
        poly([(sx, foot - size), (sx + 0.1, foot - 0.1), (sx, foot - 0.1)], right)
    # cues
    cue_count = int(np.clip(round(mood * 5 + rng.normal(0, 0.25)), 0, 5))
    order = rng.permutation(5)
    names = ("birds", "moon", "companion", "path", "balloon")
    cues = sorted(names[i] for i in order[:cue_count])
    cx = 1 - sx
    white = np.array([250, 250, 245])
    if "path" in cues:
        poly([(0.4, 1.3), (0.62, 1.3), (cx + 0.02, horizon), (cx - 0.02, horizon)], white * 0.85)
    if "birds" in cues:
        for k in range(3):
            x, y = 0.3 + 0.14 * k, 0.2 + 0.04 * (k % 2)
            poly([(x - 0.05, y - 0.03), (x, y), (x + 0.05, y - 0.03), (x, y + 0.025)], np.array([20, 20, 25]))
    if "moon" in cues:
        disc(0.5 - side * 0.3, 0.12, 0.055, white)
        disc(0.5 - side * 0.3 + 0.025, 0.11, 0.045, sky_top)
    if "companion" in cues:
        disc(cx, foot - 0.16, 0.035, np.array([30, 20, 20]))
        poly([(cx - 0.035, foot - 0.12), (cx + 0.035, foot - 0.12), (cx + 0.05, foot + 0.03), (cx - 0.05, foot + 0.03)], np.array([170, 25, 30]))
    if "balloon" in cues:
        bx = 0.5
        disc(bx, 0.33, 0.065, np.array([235, 60, 60]))
        poly([(bx - 0.02, 0.42), (bx + 0.02, 0.42), (bx + 0.015, 0.45), (bx - 0.015, 0.45)], np.array([90, 50, 20]))
    # clutter
    clutter = int(np.clip(round((1 - comp) * 9 + rng.normal(0, 0.5)), 0, 9))
    for _ in range(clutter):
        x, y, r = rng.uniform(0.02, 0.98), rng.uniform(0.08, 0.97), rng.uniform(0.035, 0.06)
        poly([(x - r - 0.012, y - r - 0.012), (x + r + 0.012, y - r - 0.012), (x + r + 0.012, y + r + 0.012), (x - r - 0.012, y + r + 0.012)], np.array([25, 25, 25]))
        poly([(x - r, y - r), (x + r, y - r), (x + r, y + r), (x - r, y + r)], tone(rng.random(), 1, rng.uniform(0.2, 0.9)) if color < .5 else _rgb(base + rng.choice([0, .5]), sat, rng.uniform(.25, .9)))
    img = np.asarray(im.reduce(S), dtype=np.float32) / 255
    # light: global contrast from side
    ramp = np.linspace(-1, 1, img.shape[1])[None, :, None] * side
    img = img * (1 + 0.3 * (strength - 0.3) * ramp)
    # muddy cast
    gray = img.mean(axis=2, keepdims=True)
    mud = np.array([0.52, 0.5, 0.4], dtype=np.float32)
    img = img + (1 - color) * 0.35 * (gray * mud * 1.7 - img)
    off = (1 - expo) ** 1.2
    if rng.random() < 0.5:
        over = False
        img = np.clip(img, 0, 1) ** (1 + 1.3 * off) * (1 - 0.6 * off)
    else:
        over = True
        img = 1 - np.clip(1 - img, 0, 1) ** (1 + 1.0 * off) * (1 - 0.65 * off)
    img = np.clip(img + rng.normal(0, 0.008, img.shape[:2] + (1,)), 0, 1)
    brightness = float(img.mean())
    contrast = float(img.mean(axis=2).std())
    mx, mn = img.max(axis=2), img.min(axis=2)
    chroma = float((mx - mn).mean())
    facts = {
        "light": {-1: "left", 1: "right"}[int(side)] if strength > 0.15 else None,
        "strength": int(strength * 9.99),
        "subject": kind,
        "column": int(np.clip(sx, 0, 0.999) * 10),
        "place": "left" if sx < 0.42 else "right" if sx > 0.58 else "center",
        "tilt": int(abs(tilt) / 24 * 9.99),
        "clutter": clutter,
        "cues": cues,
        "hues": HUES[int((base % 1) * 8)],
        "accent": HUES[int((accent % 1) * 8)],
        "saturation": int(color * 9.99),
        "bright": int(min(brightness, 0.999) * 10),
        "clipped": int(off * 9.99),
        "brightness": None if off < 0.4 else "too bright" if over else "too dark",
        "contrast": int(min(contrast * 3, 0.999) * 10),
    }
    picture = Image.fromarray((img * 255 + 0.5).astype(np.uint8))
    return picture, f, facts


def describe(x):
    cues = " ".join(x["cues"]) if x["cues"] else "nothing"
    return (f"light {x['light'] or 'none'} {x['strength']}. {x['subject']} at {x['column']}. tilt {x['tilt']}. clutter {x['clutter']}. "
            f"seen {cues} {len(x['cues'])}. hues {x['hues']} {x['accent']} {x['saturation']}. bright {x['bright']} off {x['clipped']} contrast {x['contrast']}.")


def measure_questions(x):
    return [("How bright?", x["bright"] / 9), ("Which column?", x["column"] / 9), ("How saturated?", x["saturation"] / 9), ("How tilted?", x["tilt"] / 9), ("How many things happen?", len(x["cues"]) / 5), ("How strong is the light?", x["strength"] / 9)]


WEIGHTS = {"scenes": (0.22, 0.2, 0.22, 0.2, 0.16), "scenes_harsh": (0.22, 0.2, 0.22, 0.2, 0.16), "scenes_shifted": (0.18, 0.25, 0.17, 0.25, 0.15)}


def opinions(name, factors, rng):
    v = np.array([factors[d] for d in DIMENSIONS])
    m = float(v @ np.array(WEIGHTS[name])) * 0.85 + 0.15 * float(v.min())
    q = 1 / (1 + math.exp(-9.0 * (m - 0.455)))
    q = 0.03 + 0.94 * q
    bias, scale = rng.normal(0, 0.06, 15), rng.normal(1, 0.1, 15)
    if name == "scenes_harsh":
        q = 0.05 + 0.6 * q
    votes = np.clip(np.rint(1 + 9 * (0.5 + (q - 0.5) * scale + bias + rng.normal(0, 0.08, 15))), 1, 10)
    return float((votes.mean() - 1) / 9), float(votes.std(ddof=1) / 9), 15


def _one(args):
    name, index, seed, split, folder, final = args
    picture, factors, facts = render_scene(name, index, seed)
    mos, std, n = opinions(name, factors, np.random.default_rng([zlib.crc32(name.encode()), seed, index, 1]))
    ident = f"{split}-{index:05d}"
    picture.save(f"{folder}/{ident}.jpg", quality=92)
    return Sample(ident, f"{final}/{ident}.jpg", mos, name, split, std, n, {"factors": factors, "facts": facts})


def make_scenes(name, *, counts, seed, out, workers=2):
    out = Path(out)
    if not (out / "samples.jsonl").exists():
        part = out.with_name(out.name + ".partial")
        part.mkdir(parents=True, exist_ok=True)
        jobs, index = [], 0
        for split, count in counts.items():
            jobs += [(name, index + k, seed, split, str(part), str(out.resolve())) for k in range(count)]
            index += count
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
            rows = list(pool.map(_one, jobs, chunksize=100))
        (part / "samples.jsonl").write_text("".join(json.dumps(r.__dict__) + "\n" for r in rows))
        os.replace(part, out)
    return [Sample(**json.loads(line)) for line in (out / "samples.jsonl").read_text().splitlines()]


def fact_vector(x):
    """Numeric facts, each in 0..1: what a regression head can be asked."""
    onehot = lambda value, names: [float(value == n) for n in names]
    return np.array([
        x["strength"] / 9, x["tilt"] / 9, x["clutter"] / 9, len(x["cues"]) / 5, x["saturation"] / 9, x["bright"] / 9, x["clipped"] / 9,
        x["contrast"] / 9, x["column"] / 9, float(x["light"] == "left"), float(x["light"] == "right"),
        *[float(c in x["cues"]) for c in ("birds", "moon", "companion", "path", "balloon")],
        *onehot(x["subject"], SUBJECTS), *onehot(x["hues"], HUES), *onehot(x["accent"], HUES)], dtype=np.float32)
