-- lib/databases.lua: calls of commands about keys that lie in several databases of the server.
--
-- Such a key is known by the number of its database and its name ('3:job:1'). Only the calls below turn that into the
-- name again. The script's own connection stays in the database in which it is.

-- Commands whose key stands behind a word, and those with two keys.
local KEY_BEHIND_WORD = { MEMORY = true, OBJECT = true, XINFO = true }
local TWO_KEYS = { COPY = true, RENAMENX = true }

-- Given names, and the numbers of their databases by turns, returns the keys, and
-- redis.call and redis.pcall for commands about these keys or none. A database that cannot be selected is an error
-- for both.
local function begin(names, numbers)
  local keys, name_of, database_of, selected = {}, {}, {}, nil
  for i, name in ipairs(names) do
    local database = numbers[(i - 1) % #numbers + 1]
    local key = database .. ':' .. name
    keys[i], name_of[key], database_of[key] = key, name, database
  end

  local function enter(key)
    local database = database_of[key]
    if database == selected then return end
    selected = nil
    redis.call('SELECT', database)
    selected = database
  end

  local function selecting(run)
    return function(command, key, ...)
      if KEY_BEHIND_WORD[command] then
        local second = ...
        enter(second)
        return run(command, key, name_of[second], select(2, ...))
      end
      local name = name_of[key]
      if not name then
        if key == nil then return run(command) end
        return run(command, key, ...)
      end
      enter(key)
      if not TWO_KEYS[command] then return run(command, name, ...) end
      local second = ...
      if command == 'COPY' then return run(command, name, name_of[second], 'DB', database_of[second]) end
      return run(command, name, name_of[second])
    end
  end

  return keys, selecting(redis.call), selecting(redis.pcall)
end

return { begin = begin }
