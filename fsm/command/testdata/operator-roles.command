€À—Ñíÿ–`

admin2Q
M
opsconfidentialviewerissueroperatorauditor2client_secret_basic`	