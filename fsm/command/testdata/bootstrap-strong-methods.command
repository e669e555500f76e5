€À—Ñíÿ–c-1,€¨Ö¹€Àâ…ãh€€ÀÛ°„²= €ä—Ğ(€€¼ŠÉÒ08€”ëÜ"z
appconfidentialissuer"x*i2client_secret_basic8@H€À—Ñíÿ–P	Z3salt ®b×	)á¨¾¡z×Õ?ŒêvÀ²à7šÔ5í¯—² €À—Ñíÿ–"‘
robotconfidential2private_key_jwt2tls_client_authjB
k1+tttttttttttttttttttttttttttttttttttttttttttES256"public(pzCN=robot,O=Example