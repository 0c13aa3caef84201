import json

import numpy as np
from PIL import Image, ImageOps

about = json.load(open("export.json"))
names = json.load(open("class_names.json"))
size = about["input"]["shape"][1]
photo = Image.open("photo.png")
wide = photo.mode == "RGB" and ";16" in str(photo.tile)
photo = ImageOps.exif_transpose(photo)
if wide:  # Pillow keeps the upper 8 of 16 bits, which may hold 10, 12 or 14
    white = next(white for white in (3, 15, 63, 255) if white >= np.max(photo))
    photo = photo.point([min(255, round(v * 255 / white)) for v in range(256)] * 3)
if photo.mode[0] in "IF":  # more than 8 bits: white is the first of these that holds all values
    values = np.asarray(photo, np.float64)
    whites = [1] * (photo.mode == "F") + [255, 1023, 4095, 16383, 65535]
    low, high = 0, next((white for white in whites if values.max() <= white), None)
    if high is None or values.min() < 0:
        low, high = np.percentile(values, [0.1, 99.9])
    scaled = np.rint(255 * np.clip((values - low) / (high - low), 0, 1))
    photo = Image.fromarray(scaled.astype(np.uint8))
if photo.has_transparency_data:
    layer = photo.convert("RGBA")
    photo = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
photo = photo.convert("RGB")
by = Image.Resampling[about["interpolation"].upper()]
square = ImageOps.fit(photo, (size, size), by)  # about["resize"] is "crop"
pixels = np.asarray(square, np.float32)[None]  # (1, size, size, 3), raw 0-255
