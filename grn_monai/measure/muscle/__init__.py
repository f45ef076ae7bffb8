"""Label volumes of muscles in CT and MR to muscle health: area, volume, density, fat infiltration, asymmetry."""
