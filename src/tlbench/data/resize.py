"""How a picture becomes a square of the size that a network takes."""

from dataclasses import dataclass

from PIL import Image, ImageOps

from tlbench.config.schema import Config


@dataclass(frozen=True)
class Resize:
    """size: the square's side in pixels; way: "crop" cuts the middle square, "pad" adds black, "stretch" changes
    the aspect; interpolation: "bilinear" or "bicubic", over as many pixels as become one.
    """

    size: int
    way: str
    interpolation: str

    @classmethod
    def of(cls, cfg: Config) -> "Resize":
        """What a configuration says of its data and its backbone."""
        size = cfg.data.image_size or cfg.backbone.image_size
        return cls(size, cfg.data.resize, cfg.backbone.interpolation)

    def __str__(self) -> str:
        return f"{self.way} to {self.size}, {self.interpolation}"

    def square(self, image: Image.Image) -> Image.Image:
        size, filter_ = (self.size, self.size), Image.Resampling[self.interpolation.upper()]
        if self.way == "crop":
            return ImageOps.fit(image, size, filter_)
        if self.way == "pad":
            return ImageOps.pad(image, size, filter_)
        return image.resize(size, filter_)

    def draft(self, image: Image.Image) -> tuple[int, int]:
        """The least size a JPEG may be decoded at (a half, a quarter, an eighth) without losing detail."""
        # Twice the size that is kept leaves the resampling filter something to work with.
        kept = max(image.size) if self.way == "pad" else min(image.size)
        scale = 2 * self.size / kept
        return (max(1, int(image.width * scale)), max(1, int(image.height * scale)))
