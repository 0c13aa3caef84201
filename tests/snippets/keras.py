import keras

model = keras.saving.load_model("model.keras", compile=False)
probabilities = model.predict(pixels, verbose=0)
print(names[probabilities[0].argmax()], probabilities[0].max())
