€À—Ñíÿ–

node1/6b1fboot