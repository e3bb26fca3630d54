"""Which components run, in what order, with which settings; and the runners."""

import surroundings

surroundings.decide()
