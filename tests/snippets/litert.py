from ai_edge_litert.interpreter import Interpreter

interpreter = Interpreter("model.tflite")
into, out = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
interpreter.resize_tensor_input(into["index"], pixels.shape)
interpreter.allocate_tensors()
interpreter.set_tensor(into["index"], pixels)
interpreter.invoke()
probabilities = interpreter.get_tensor(out["index"])
print(names[probabilities[0].argmax()], probabilities[0].max())
