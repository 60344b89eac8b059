-- Keep the places of requests that are running. KEYS: one a place. ARGV: lease_s, the places.
for i, key in ipairs(KEYS) do
  hold_place(key, ARGV[i + 1], tonumber(ARGV[1]))
end
return 1
