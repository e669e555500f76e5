€À—Ñíÿ–¦

admin2–
‘
robotconfidential2private_key_jwt2tls_client_authjB
k1+tttttttttttttttttttttttttttttttttttttttttttES256"public(pzCN=robot,O=Example	