-- lib/databases.lua: calls of commands about keys that lie in several databases of the server.
--
-- Such a key is known by its place in KEYS, a number. Only the calls below turn that into its name: they select its
-- database first. Names themselves pass as they are, to the database that was selected last. The script's own
-- connection stays in the database in which it is.

-- Commands whose key stands behind a word, and those with two keys.
local KEY_BEHIND_WORD = { MEMORY = true, OBJECT = true, XINFO = true }
local TWO_KEYS = { COPY = true, RENAMENX = true }

-- Given the names of keys, and the numbers of the databases in which they lie by turns, returns the keys; redis.call
-- and redis.pcall for commands about them, or about none; and enter(key), which selects a key's database and returns
-- its number. A database that cannot be selected is an error for all of them.
local function begin(names, numbers)
  local keys, count, selected = {}, #numbers, nil
  for i = 1, #names do keys[i] = i end

  local function enter(key)
    local database = numbers[(key - 1) % count + 1]
    if database ~= selected then
      selected = nil
      redis.call('SELECT', database)
      selected = database
    end
    return database
  end

  local function selecting(run)
    return function(command, key, ...)
      local name = names[key]
      if name and not TWO_KEYS[command] then
        enter(key)
        return run(command, name, ...)
      end
      local second = ...
      local second_name = names[second]
      if name then
        local database = enter(second)
        enter(key)
        if command == 'COPY' then return run(command, name, second_name, 'DB', database, select(2, ...)) end
        return run(command, name, second_name)
      end
      if KEY_BEHIND_WORD[command] and second_name then
        enter(second)
        return run(command, key, second_name, select(2, ...))
      end
      if key == nil then return run(command) end
      return run(command, key, ...)
    end
  end

  return keys, selecting(redis.call), selecting(redis.pcall), enter
end

return { begin = begin }
