"""What runs inside Transform and Trainer: preprocessing, network, training, signatures."""

import surroundings

surroundings.decide()
