"""Cifar10ExampleGen: CIFAR-10, or one's own images, in; checked tf.Examples in train, validation and test out.

Empty on purpose: `download` has to start without TFX. The component is in `components.cifar10_example_gen.component`.
"""
