import tensorflow as tf

model = tf.saved_model.load("model")
probabilities = model.serve(pixels).numpy()
print(names[probabilities[0].argmax()], probabilities[0].max())
