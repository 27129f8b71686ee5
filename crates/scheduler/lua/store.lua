-- Reads from Redis, each at most once, and writes, together at the end (P17). There is no module of this in src/transition: its state is memory.

store = part(function(store)
  local Hash = {}
  Hash.__index = Hash

  -- P17 (partial writes): `dirty` is set with the first write and cleared with the last.
  local dirty

  function store.write(...)
    if not dirty then
      dirty = true
      call('HSET', META, 'dirty', 1)
    end
    return call(...)
  end

  -- Writes any number of arguments in several commands, because `unpack` fails near 8,000.
  function store.write_all(command, key, arguments)
    local written = 0
    for from = 1, #arguments, 4000 do
      written = written + store.write(command, key, unpack(arguments, from, min(from + 3999, #arguments)))
    end
    return written
  end

  -- Gives members of a sorted set a score, or removes them (false).
  function store.move_all(key, moves)
    if next(moves) == nil then return end
    local added, removed = {}, {}
    for member, at in pairs(moves) do
      if at then
        added[#added + 1] = at
        added[#added + 1] = member
      else
        removed[#removed + 1] = member
      end
    end
    store.write_all('ZADD', key, added)
    store.write_all('ZREM', key, removed)
  end

  -- A number as a field or member: digits of equal length sort like numbers.
  function store.id(number) return format('%016d', number) end

  -- Compares by byte, whatever the server's locale is.
  function store.before(a, b)
    for i = 1, min(#a, #b) do
      local x, y = a:byte(i), b:byte(i)
      if x ~= y then return x < y end
    end
    return #a < #b
  end

  function store.sorted(set)
    local names = {}
    for name in pairs(set) do names[#names + 1] = name end
    if #names > 1 then table.sort(names, store.before) end
    return names
  end

  -- A hash of records: each is read at most once, and written once if it was changed. false: there is no such record.
  function store.hash() return setmetatable({ key = '', known = {}, changed = {}, whole = false }, Hash) end

  -- Another call begins.
  function Hash:begin(key)
    self.key = key
    if self.whole or next(self.known) ~= nil then self.known, self.changed, self.whole = {}, {}, false end
  end

  -- An empty value is no record but the placeholder that keeps the key alive.
  function Hash:learn(field, value)
    local record = value and value ~= '' and unpacked(value) or false
    self.known[field] = record
    return record
  end

  function Hash:get(field)
    local record = self.known[field]
    if record ~= nil then return record end
    return not self.whole and self:learn(field, call('HGET', self.key, field))
  end

  -- Reads many records at once, so that `get` finds them.
  function Hash:fetch(fields)
    if self.whole then return end
    local missing = {}
    for _, field in ipairs(fields) do
      if self.known[field] == nil then
        self.known[field] = false
        missing[#missing + 1] = field
      end
    end
    for from = 1, #missing, 4000 do
      local values = call('HMGET', self.key, unpack(missing, from, min(from + 3999, #missing)))
      for i, value in ipairs(values) do self:learn(missing[from + i - 1], value) end
    end
  end

  function Hash:put(field, record)
    self.known[field], self.changed[field] = record, true
  end

  function Hash:clear()
    store.write('UNLINK', self.key)
    self.known, self.changed, self.whole = {}, {}, true
  end

  function Hash:save()
    if next(self.changed) == nil then return end
    local set, removed = {}, {}
    for field in pairs(self.changed) do
      local record = self.known[field]
      if record then
        set[#set + 1] = field
        set[#set + 1] = pack(record)
      else
        removed[#removed + 1] = field
      end
    end
    self.changed = {}
    store.write_all('HSET', self.key, set)
    store.write_all('HDEL', self.key, removed)
  end

  -- Records that are fields of META, behind a letter, written and read by these functions.
  local Records = {}
  Records.__index = Records

  function store.records(letter, packed, from_packed)
    local of = setmetatable({ letter = letter, packed = packed, from_packed = from_packed, known = {}, changed = {}, any = false, whole = false }, Records)
    context.records[letter] = of
    return of
  end

  function Records:learn(field, value)
    local record = value and self.from_packed(value) or false
    self.known[field] = record
    return record
  end

  -- Reads all records of all kinds. Returns the other fields of META.
  function store.read_all()
    local values, others = call('HGETALL', META), {}
    for i = 1, #values, 2 do
      local field = values[i]
      local of = context.records[field:sub(1, 1)]
      if of then
        field = field:sub(2)
        if of.known[field] == nil then of:learn(field, values[i + 1]) end
      else
        others[field] = values[i + 1]
      end
    end
    for _, of in pairs(context.records) do of.whole = true end
    return others
  end

  function Records:get(field)
    local record = self.known[field]
    if record ~= nil then return record end
    return not self.whole and self:learn(field, call('HGET', META, self.letter .. field))
  end

  function Records:fetch(fields)
    if self.whole then return end
    local missing, names = {}, {}
    for _, field in ipairs(fields) do
      if self.known[field] == nil then
        self.known[field] = false
        missing[#missing + 1], names[#names + 1] = field, self.letter .. field
      end
    end
    for from = 1, #missing, 4000 do
      local values = call('HMGET', META, unpack(names, from, min(from + 3999, #names)))
      for i, value in ipairs(values) do self:learn(missing[from + i - 1], value) end
    end
  end

  -- All records, the removed ones as false.
  function Records:all()
    if not self.whole then store.read_all() end
    return self.known
  end

  function Records:put(field, record)
    self.known[field], self.changed[field], self.any = record, true, true
  end

  function Records:clear()
    for field in pairs(self:all()) do self:put(field, false) end
  end

  -- Adds the changed records to fields and values that are to be set, and the removed ones to fields that are to be removed.
  function Records:save(set, removed)
    for field in pairs(self.changed) do
      local record = self.known[field]
      if record then
        set[#set + 1] = self.letter .. field
        set[#set + 1] = self.packed(record)
      else
        removed[#removed + 1] = self.letter .. field
        if self.whole then self.known[field] = nil end
      end
    end
    self.changed, self.any = {}, false
  end

  return function() dirty = false end
end)
