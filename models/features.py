"""The one home of feature, class and split names. Imports nothing, so that every room may import it."""

IMAGE_KEY = "image"
"""Raw: encoded image file, bytes [batch, 1]. Transformed: float32 [batch, 64, 64, 3]."""

LABEL_KEY = "label"
"""int64 [batch, 1], an index into CLASS_NAMES. Transformed: int64 [batch]."""

CLASS_NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
"""In label order, as in `batches.meta.txt` of the CIFAR-10 archive (Krizhevsky 2009)."""

NUM_CLASSES = len(CLASS_NAMES)

NUM_CHANNELS = 3

SOURCE_IMAGE_SIZE = 32
"""Height and width of a CIFAR-10 image, in pixels. Every decoded image is brought to this size first."""

MODEL_IMAGE_SIZE = 64
"""Height and width that AlexNet takes, in pixels."""

TRAIN_SPLIT = "train"
VALIDATION_SPLIT = "validation"
TEST_SPLIT = "test"
