#!/usr/bin/env bash
# The whole way offline, in a folder of its own: two heads with two seeds each on the embedded digits, then
# every verb on what they left. Needs the export extra; takes some minutes on two cores.
#   bash tests/whole_way.sh [FOLDER]
set -euo pipefail
cd "${1:-$(mktemp -d)}"
echo "in $PWD"
export TLBENCH_CACHE="$PWD/cache"

tlbench train --multirun data=digits backbone=vgg16 backbone.weights=null backbone.image_size=32 \
    trainable=false head.widths=[],[64] seed=0,1 epochs=30 learning_rate=0.01 hydra.sweep.dir=sweep
run=sweep/0
tlbench evaluate $run
python - <<'P'
from pathlib import Path

from PIL import Image
from sklearn.datasets import load_digits

digits = load_digits()
Path("pictures").mkdir(exist_ok=True)
for i in range(12):
    gray = Image.fromarray((digits.images[i] * 255 / 16).astype("uint8"))
    gray.resize((80, 80)).save(f"pictures/{i:02}_is_{digits.target[i]}.png")
P
tlbench predict $run pictures --top 3
tlbench export $run --format saved_model,onnx,openvino,litert,keras
tlbench export $run --format litert --quantize int8 --accuracy-loss 0.05
tlbench report sweep --html report.html
tlbench report sweep --markdown
tlbench report --compare sweep/0 sweep/2 sweep
