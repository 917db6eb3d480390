-- name_weight.lua: included by the scripts that go through given names.

-- What a name weighs: its values are few and small, or the pair would not be filled but copied.
local LEAST_NAME = 512
