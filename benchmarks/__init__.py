"""What the README claims about speed, each by one command that measures it again."""

import surroundings

surroundings.decide()
