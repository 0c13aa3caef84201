import json

import numpy as np
from PIL import Image, ImageOps

about = json.load(open("export.json"))
names = json.load(open("class_names.json"))
size = about["input"]["shape"][1]
photo = ImageOps.exif_transpose(Image.open("photo.png")).convert("RGB")
square = ImageOps.fit(photo, (size, size), Image.Resampling.BILINEAR)  # about["resize"] is "crop"
pixels = np.asarray(square, np.float32)[None]  # (1, size, size, 3), raw 0-255
