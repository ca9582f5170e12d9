// Strokes and fills on pixels of 32 bits. Edges are hard: a segmentation model knows a thing by its exact colour.

export const joined = (a, b) => (!a ? b : !b ? a : {
    left: Math.min(a.left, b.left), top: Math.min(a.top, b.top),
    right: Math.max(a.right, b.right), bottom: Math.max(a.bottom, b.bottom),
});

// The pixels of `surface` that a round pen covers on its way between two points {x, y, r}; returns the box of them.
export function stroke(surface, from, to, value) {
    const {pixels, width, height} = surface;
    const reach = Math.max(from.r, to.r);
    const box = {
        left: Math.max(0, Math.floor(Math.min(from.x, to.x) - reach)),
        top: Math.max(0, Math.floor(Math.min(from.y, to.y) - reach)),
        right: Math.min(width, Math.ceil(Math.max(from.x, to.x) + reach) + 1),
        bottom: Math.min(height, Math.ceil(Math.max(from.y, to.y) + reach) + 1),
    };
    if (box.left >= box.right || box.top >= box.bottom) return null;
    const dx = to.x - from.x, dy = to.y - from.y, length = dx * dx + dy * dy || 1, wider = to.r - from.r;
    for (let y = box.top; y < box.bottom; y += 1) {
        const py = y + 0.5 - from.y, row = y * width;
        const [first, end] = span(box, from, dx, dy, py, reach);
        for (let x = first; x < end; x += 1) {
            const px = x + 0.5 - from.x;
            const part = Math.min(Math.max((px * dx + py * dy) / length, 0), 1);
            const ax = px - part * dx, ay = py - part * dy, r = Math.max(from.r + part * wider, 0.5);
            if (ax * ax + ay * ay <= r * r) pixels[row + x] = value;
        }
    }
    return box;
}

// Of a row, the part that the pen can reach: a slanting line's box is large and mostly empty.
function span(box, from, dx, dy, py, reach) {
    if (Math.abs(dy) < 1) return [box.left, box.right];
    const low = Math.min(Math.max((py - reach) / dy, 0), 1), high = Math.min(Math.max((py + reach) / dy, 0), 1);
    const a = from.x + low * dx, b = from.x + high * dx;
    return [
        Math.max(box.left, Math.floor(Math.min(a, b) - reach - 1)),
        Math.min(box.right, Math.ceil(Math.max(a, b) + reach + 1)),
    ];
}

// Every pixel of the colour at (x, y) that is reached from there, by rows; returns the box of them, null where it is outside.
export function fill(surface, x, y, value) {
    const {pixels, width, height} = surface;
    [x, y] = [Math.floor(x), Math.floor(y)];
    if (x < 0 || y < 0 || x >= width || y >= height) return null;
    const old = pixels[y * width + x];
    if (old === value) return null;
    const box = {left: x, top: y, right: x + 1, bottom: y + 1};
    const seeds = [[x, y]];
    while (seeds.length) {
        const [sx, sy] = seeds.pop();
        const row = sy * width;
        if (pixels[row + sx] !== old) continue;
        let left = sx, right = sx + 1;
        while (left > 0 && pixels[row + left - 1] === old) left -= 1;
        while (right < width && pixels[row + right] === old) right += 1;
        pixels.fill(value, row + left, row + right);
        Object.assign(box, joined(box, {left, top: sy, right, bottom: sy + 1}));
        for (const next of [sy - 1, sy + 1]) if (next >= 0 && next < height) addSeeds(pixels, next * width, left, right, old, next, seeds);
    }
    return box;
}

// One seed for each run of the colour in a row.
function addSeeds(pixels, row, left, right, old, y, seeds) {
    for (let x = left; x < right; x += 1) {
        if (pixels[row + x] === old && (x === left || pixels[row + x - 1] !== old)) seeds.push([x, y]);
    }
}

// "#rrggbb" as an opaque pixel; the bytes of ImageData are red first, and every browser's machine is little-endian.
export function pixelOf(colour) {
    const number = parseInt(colour.slice(1), 16);
    return ((0xff000000 | ((number & 0xff) << 16) | (number & 0xff00) | (number >> 16)) >>> 0);
}
