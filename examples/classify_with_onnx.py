"""Recognise photographs with an exported classifier, by ONNX Runtime alone: classify_with_onnx.py mugs.onnx PHOTO..."""

import json
import sys

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

session = onnxruntime.InferenceSession(sys.argv[1])
about = session.get_modelmeta().custom_metadata_map
size, share = int(about["image_size"]), int(about["image_size"]) / int(about["resize"])
for path in sys.argv[2:]:
    image = ImageOps.exif_transpose(Image.open(path)).convert("RGB")
    left, top = ((length - share * min(image.size)) / 2 for length in image.size)
    square = image.resize((size, size), Image.Resampling.BILINEAR, (left, top, image.width - left, image.height - top))
    (probabilities,) = session.run(None, {"images": np.asarray(square)[None]})[0]
    print(f"{path}: {json.loads(about['classes'])[probabilities.argmax()]}, {100 * probabilities.max():.0f} %")
