ЂА—Сня–Ы

adminтК
Е
as1https://as.examplehttps://as.example/jwks"RS256*JWT2
typBearer2
useaccess:nonceBcidJsidRgidX`hpxЂЂАв…гh€Ђд—РђљQ
k1+aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaRS256"der(0ЂА—Сня–8ЂА—Сня– ЂА—Сня–Ё	°ёЂ°ќВЯАЂА—Сня–ИЂА—Сня–ШЂ”лЬаЂА—Сня–к 
azpsessiongrant (ЂА—Сня–р	г

admin’Т
https://as.examplej-1 ь“Лб­’‰…'XЎПeйўf¦ш<„юµAЗі ;КW·НФэbiИдЂпecd6лч*эaч(€Ї­‘юў"app*alice2s-1:g-1@ЂА—Сня–HЂ€ж…ыя–RrsZ+aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaabwhyj
olds-0g-0 (p