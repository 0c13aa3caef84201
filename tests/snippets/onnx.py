import os

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # or ONNX Runtime reports its use to Microsoft
import onnxruntime

session = onnxruntime.InferenceSession("model.onnx")
(probabilities,) = session.run(None, {session.get_inputs()[0].name: pixels})
print(names[probabilities[0].argmax()], probabilities[0].max())
