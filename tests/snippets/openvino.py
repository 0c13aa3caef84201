import sys

sys.modules["openvino_telemetry"] = None  # or OpenVINO reports its use to Intel
import openvino

options = {"INFERENCE_PRECISION_HINT": "f32"}  # leave it out for speed at less precision
model = openvino.Core().compile_model("model.xml", "CPU", options)
probabilities = model(pixels)[0]
print(names[probabilities[0].argmax()], probabilities[0].max())
