"""The formats that a model is exported to: what each needs, holds and calls its file. No TensorFlow."""

from dataclasses import dataclass

from tlbench.base import optional
from tlbench.base.errors import ConfigError, suggest


@dataclass(frozen=True)
class Format:
    """One format, or the quantized variant of one."""

    name: str  # what --format calls it
    file: str  # the model's file or folder in the export's folder
    packages: tuple[str, ...] = ()  # optional ones, to write it and to run it
    quantized: str | None = None

    @property
    def label(self) -> str:
        """The name of the export's folder."""
        return f"{self.name}_{self.quantized}" if self.quantized else self.name


FORMATS = {
    f.name: f
    for f in (
        Format("saved_model", "model"),
        Format("onnx", "model.onnx", ("onnx", "tf2onnx", "onnxruntime")),
        Format("openvino", "model.xml", ("openvino",)),
        Format("litert", "model.tflite", ("ai_edge_litert",)),
        Format("keras", "model.keras"),
    )
}


def parse_formats(words: list[str], quantize: str | None) -> list[Format]:
    """The formats of `--format a,b --format c`, each once; their packages are all there.

    Raises ConfigError for an unknown format or one that cannot be quantized, ExportError naming the
    extra for a missing package.
    """
    names = list(dict.fromkeys(name.strip() for word in words for name in word.split(",")))
    for name in names:
        if name not in FORMATS:
            raise ConfigError(f"Unknown format '{name}'. {suggest(name, FORMATS)}")
    if quantize and "litert" not in names:
        raise ConfigError(f"--quantize {quantize} is for litert. Add it: --format litert")
    chosen = [FORMATS[name] for name in names]
    for form in chosen:
        optional.require(form.packages, f"--format {form.name}")
    if quantize:
        plain = FORMATS["litert"]
        chosen[names.index("litert")] = Format(plain.name, plain.file, plain.packages, quantize)
    return chosen
