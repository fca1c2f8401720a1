"""One module per data set layout: each lists the cases of a folder, reading no voxel it can do without."""
