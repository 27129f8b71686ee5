-- Sliding windows: one entry per grant, with the time when it expires, and totals by deployment. The functions of src/transition/windows.rs, in its order; its head says
-- what differs. What reads and writes, and the counts of open calls, exist only here. `refund`, `reported_at`, `assume_dispatched`, `counted` and `add_open_charge` are
-- parts of src/transition/ops.rs, ending.rs and grants.rs, and so is `next_free`: here they need entries, which only this part reads.

windows = part(function(windows)
  -- Entries and totals are arrays, because there are many. An entry has its deployment, its cost, its time, how many of its deployment's windows, the shorter ones, it has
  -- left, what its time is (P8), the generation of the list of windows that counts it, its time in the order, and its place in its block. Its time is that of its dispatch as reported (false), the end of its session
  -- (ASSUMED), or that of its grant as long as the dispatch is not reported (OPEN). A list of windows that was in force up to a generation is kept in `state.former`, with
  -- what it counts, until all of that is recounted.
  -- A total has the open calls, then requests, input and output tokens of each window.
  local DEPLOYMENT, REQUESTS, INPUT, OUTPUT, AT, STAGE, DISPATCH, GENERATION, LEAVES, PLACE = 1, 2, 3, 4, 5, 6, 7, 8, 9, 10
  local ASSUMED, OPEN = 1, 2
  windows.GRANT, windows.EXCESS, windows.CONSERVATIVE = 0, 1, 2
  -- How many blocks of a group are kept between calls: 7 kB each at most.
  local KEPT_BLOCKS = 100
  -- Blocks that have changed since they were last written to the order; and those that have since they were written.
  local moved, changed

  -- Entries are stored in blocks: those of a kind whose numbers are equal but for the last place to the base BLOCK. A block is written as a list of its entries, under its
  -- kind and the lowest of its numbers, and its time in the order is the first of its entries' times.
  local function new_block(kind, base, stored)
    local block = { kind = kind, base = base, name = format('%d%016d', kind, base), entries = {}, score = false, moved = false, changed = false }
    if stored then
      local first = NEVER
      for _, entry in ipairs(unpacked(stored)) do
        block.entries[entry[PLACE]] = entry
        if entry[LEAVES] < first then first = entry[LEAVES] end
      end
      block.score = first
    end
    local of = context.blocks
    of[kind][base], of.count = block, of.count + 1
    return block
  end

  local function block_of(kind, base)
    return context.blocks[kind][base] or new_block(kind, base, call('HGET', ENTRIES, format('%d%016d', kind, base)))
  end

  -- Reads blocks, given by their kinds and the lowest of their numbers in turns, together.
  local function fetch_blocks(wanted)
    local missing, names, asked = {}, {}, {}
    for i = 1, #wanted, 2 do
      local kind, base = wanted[i], wanted[i + 1]
      if not context.blocks[kind][base] then
        local name = format('%d%016d', kind, base)
        if not asked[name] then
          asked[name] = true
          names[#names + 1] = name
          missing[#missing + 1], missing[#missing + 2] = kind, base
        end
      end
    end
    for from = 1, #names, 4000 do
      local values = call('HMGET', ENTRIES, unpack(names, from, min(from + 3999, #names)))
      for i, value in ipairs(values) do new_block(missing[2 * (from + i) - 3], missing[2 * (from + i) - 2], value) end
    end
  end

  local lower_recount

  local function mark(block)
    if state.recount then lower_recount(block) end
    if block.moved then return end
    block.moved = true
    moved[#moved + 1] = block
    if not block.changed then
      block.changed = true
      changed[#changed + 1] = block
    end
  end

  local function entry_of(kind, number)
    local place = number % BLOCK
    local block = context.blocks[kind][number - place] or block_of(kind, number - place)
    return block.entries[place], block, place
  end

  local function first_leaving(block)
    local first = NEVER
    for _, entry in pairs(block.entries) do
      if entry[LEAVES] < first then first = entry[LEAVES] end
    end
    return first
  end

  -- The recount goes back to a block that moves before its place and has entries that are still to be recounted.
  function lower_recount(block)
    local first = first_leaving(block)
    if first >= state.recount then return end
    for _, entry in pairs(block.entries) do
      if by_id[entry[DEPLOYMENT]] and windows.is_former(entry) then
        state.recount = first
        return
      end
    end
  end

  -- Before the order is read.
  local function write_moves()
    if #moved == 0 then return end
    local added, removed = {}, {}
    for _, block in ipairs(moved) do
      local first = next(block.entries) ~= nil and first_leaving(block)
      block.moved = false
      if first and first ~= block.score then
        local n = #added
        added[n + 1], added[n + 2] = first, block.name
        if first < state.expires_at then state.expires_at = first end
      elseif not first and block.score then
        removed[#removed + 1] = block.name
      end
      block.score = first
    end
    moved = {}
    store.write_all('ZADD', WINDOWS, added)
    store.write_all('ZREM', WINDOWS, removed)
  end

  function windows.save()
    write_moves()
    if #changed > 0 then
      local set, removed = {}, {}
      for _, block in ipairs(changed) do
        local list = {}
        for place = 0, BLOCK - 1 do list[#list + 1] = block.entries[place] end
        block.changed = false
        if #list > 0 then
          local n = #set
          set[n + 1], set[n + 2] = block.name, pack(list)
        else
          removed[#removed + 1] = block.name
        end
      end
      store.write_all('HSET', ENTRIES, set)
      store.write_all('HDEL', ENTRIES, removed)
    end
    if context.blocks.count > KEPT_BLOCKS then context.blocks = windows.no_blocks() end
  end

  -- P17 (partial writes): drops blocks that have no place in the order, as a script that ended between the two left them. No entry of theirs counts or would ever leave, and
  -- a new entry would bring the others back. A user without the right to look leaves them.
  function windows.drop_unordered()
    local names, lost = redis.pcall('HKEYS', ENTRIES), {}
    if names.err then return end
    for from = 1, #names, 4000 do
      for i, score in ipairs(call('ZMSCORE', WINDOWS, unpack(names, from, min(from + 3999, #names)))) do
        local name = names[from + i - 1]
        if not score and name ~= '' then lost[#lost + 1] = name end
      end
    end
    store.write_all('HDEL', ENTRIES, lost)
  end

  -- The entries are void.
  function windows.forget_all()
    for _, key in ipairs({ WINDOWS, ENTRIES }) do store.write('UNLINK', key) end
    moved, changed, context.blocks, state.expires_at = {}, {}, windows.no_blocks(), 0
  end

  function windows.no_blocks() return { [0] = {}, {}, {}, count = 0 } end

  -- Whether the block of a number is read.
  function windows.is_kept(kind, number) return context.blocks[kind][number - number % BLOCK] ~= nil end

  -- Reads the entries of these numbers together: kinds and numbers in turns.
  function windows.fetch(wanted)
    for i = 2, #wanted, 2 do wanted[i] = wanted[i] - wanted[i] % BLOCK end
    fetch_blocks(wanted)
  end

  local function raw_total(deployment) return totals.known[deployment] or totals:get(deployment) or { 0 } end

  -- The part of a limit that a ticket may fill, in millionths of it (`left`): at least one unit, or the ticket would never be granted.
  function windows.part_of(limit, left)
    if limit <= 0 or left == WHOLE then return limit end
    return max(floor(limit * left / WHOLE), 1)
  end

  -- Where a total has an amount of its i-th window: amounts begin at the same index, and have the same order, as in an entry.
  local function place(i, amount) return AMOUNTS * (i - 1) + amount end

  local function within(limit, used, left) return limit == NONE or used <= windows.part_of(limit, left) end

  -- Whether a ticket fits under each limit of a window, beside what counts there.
  local function fits_kinds(window, i, total, demand)
    local limits, left, at = window.limits, demand.left, AMOUNTS * (i - 1)
    local requests, input, output = (total[at + REQUESTS] or 0) + 1, (total[at + INPUT] or 0) + demand.input, (total[at + OUTPUT] or 0) + demand.output
    local of_requests, of_tokens, of_input, of_output = limits[LIMIT_requests], limits[LIMIT_tokens], limits[LIMIT_input_tokens], limits[LIMIT_output_tokens]
    if left == WHOLE then
      return of_requests == NONE or requests <= of_requests, of_tokens == NONE or input + output <= of_tokens, of_input == NONE or input <= of_input,
        of_output == NONE or output <= of_output
    end
    return within(of_requests, requests, left), within(of_tokens, input + output, left), within(of_input, input, left), within(of_output, output, left)
  end

  windows.fits_kinds = fits_kinds

  local function fits(deployment, total, demand)
    local of = deployment.windows
    for i = 1, #of do
      local requests, tokens, input, output = fits_kinds(of[i], i, total, demand)
      if not (requests and tokens and input and output) then return false end
    end
    return true
  end

  -- Whether a ticket fits on an idle deployment.
  function windows.ever_fits(deployment, demand) return deployment.concurrency ~= 0 and fits(deployment, {}, demand) end

  -- A deployment whose grants are counted in windows.
  function windows.counted(deployment)
    local known = by_id[deployment]
    return known and #known.windows > 0 and known
  end

  -- The list of windows that counts entries of this generation (nil: the one in force), and its windows. An entry of a deployment that the rules do not name is kept for
  -- the time of the charge log.
  local function list_of(deployment, generation)
    local all = state.former
    for i = 1, #all do
      local former = all[i]
      if former.generation >= generation and former.deployment == deployment then return former, former.windows end
    end
    local known = by_id[deployment]
    return nil, known and known.windows or { { span = rules.memory } }
  end

  local function list_of_entry(entry) return list_of(entry[DEPLOYMENT], entry[GENERATION]) end

  -- Whether a former list counts an entry.
  function windows.is_former(entry) return list_of_entry(entry) ~= nil end

  -- The generation of new entries. A deployment that the rules no longer name continues with the list that last counted it.
  local function generation_for(deployment)
    local generation = state.generation
    if by_id[deployment] or not state.former[1] then return generation end
    for _, former in ipairs(state.former) do
      if former.deployment == deployment then generation = former.generation end
    end
    return generation
  end

  -- What counts of a deployment. An entry that is not recounted yet counts as in the next longer window of its former list: too much rather than too little.
  local function total_of(deployment)
    local total, known = raw_total(deployment), by_id[deployment]
    if not state.former[1] or not known then return total end
    local all
    for _, former in ipairs(state.former) do
      if former.deployment == deployment then
        if not all then
          all = { total[1] }
          for i = REQUESTS, place(#known.windows, OUTPUT) do all[i] = total[i] or 0 end
        end
        for i, window in ipairs(known.windows) do
          local at = floor((#former.totals - 1) / AMOUNTS)
          for k = #former.windows, 1, -1 do
            if former.windows[k].span >= window.span then at = k end
          end
          for amount = REQUESTS, OUTPUT do all[place(i, amount)] = all[place(i, amount)] + (former.totals[place(at, amount)] or 0) end
        end
      end
    end
    return all or total
  end

  windows.total_of = total_of

  function windows.free(deployment, demand) return fits(deployment, total_of(deployment.id), demand) end

  function windows.open(deployment) return total_of(deployment)[1] end

  function windows.add_open(deployment, calls)
    local total = raw_total(deployment)
    total[1] = total[1] + calls
    totals:put(deployment, total)
  end

  function windows.close_all()
    for deployment, total in pairs(totals:all()) do
      if total then windows.add_open(deployment, -total[1]) end
    end
  end

  -- The requests, input and output tokens that count in the index-th window.
  function windows.used(deployment, index)
    local total = total_of(deployment)
    return total[place(index, REQUESTS)] or 0, total[place(index, INPUT)] or 0, total[place(index, OUTPUT)] or 0
  end

  -- Adds a cost to the totals of these windows, or subtracts it. `grow`: windows without a total get one; those of a former list have none while the group recovers, when
  -- its totals may be wrong.
  local function count(former, deployment, requests, input, output, from, to, grow)
    local total = former and former.totals or raw_total(deployment)
    if (grow or not former) and not total[AMOUNTS * (to - 1) + OUTPUT] then
      for i = #total + 1, AMOUNTS * (to - 1) + OUTPUT do total[i] = 0 end
    end
    for i = from + 1, to do
      local of_requests = AMOUNTS * (i - 1) + REQUESTS
      local of_input, of_output = of_requests + 1, of_requests + 2
      if total[of_input] then
        total[of_requests] = total[of_requests] + requests
        total[of_input] = total[of_input] + input
        total[of_output] = total[of_output] + output
      end
    end
    if not former then totals:put(deployment, total) end
  end

  function windows.remove(kind, number)
    local entry, block, place = entry_of(kind, number)
    if not entry then return end
    block.entries[place] = nil
    mark(block)
    local former, spans = list_of_entry(entry)
    count(former, entry[DEPLOYMENT], -entry[REQUESTS], -entry[INPUT], -entry[OUTPUT], entry[STAGE], #spans)
    return entry
  end

  -- Removes the charge of a grant.
  function windows.refund(number)
    local entry = windows.remove(windows.GRANT, number)
    if entry and group.paces() then pace.refund(entry[DEPLOYMENT], entry[REQUESTS], entry[INPUT], entry[OUTPUT]) end
  end

  -- Adds an entry whose number is new. While the group recovers no entry expires, so that reports of them can be compared with the newest usage snapshot (P13).
  function windows.add(kind, number, deployment, requests, input, output, at, dispatch)
    local generation, stage, now = generation_for(deployment), 0, state.recovery and 0 or state.clock
    local former, spans = list_of(deployment, generation)
    while dispatch ~= OPEN and stage < #spans and at + spans[stage + 1].span <= now do stage = stage + 1 end
    if stage == #spans then return end
    -- What counts in a shorter window counts in the longest one too.
    local counted, longest = former and former.totals or raw_total(deployment), AMOUNTS * (#spans - 1)
    requests = min(requests, MAX_TOTAL - (counted[longest + REQUESTS] or 0))
    input, output = min(input, MAX_TOTAL - (counted[longest + INPUT] or 0)), min(output, MAX_TOTAL - (counted[longest + OUTPUT] or 0))
    count(former, deployment, requests, input, output, stage, #spans, true)
    local slot = number % BLOCK
    local block = block_of(kind, number - slot)
    block.entries[slot] = { deployment, requests, input, output, at, stage, dispatch or false, generation, at + spans[stage + 1].span, slot }
    mark(block)
  end

  -- The charge of a new grant. The first number of a block is drawn before all others of it, so then the block is new too.
  function windows.add_open_charge(number, deployment, input, output)
    if number % BLOCK == 0 and not context.blocks[windows.GRANT][number] then new_block(windows.GRANT, number) end
    windows.add(windows.GRANT, number, deployment, 1, input, output, state.clock, OPEN)
  end

  -- Adds an entry, or replaces the one of the same number.
  function windows.insert(kind, number, deployment, requests, input, output, at, dispatch)
    windows.remove(kind, number)
    windows.add(kind, number, deployment, requests, input, output, at, dispatch)
  end

  -- The reported time of a dispatch, or 0.
  function windows.reported_at(kind, number)
    local entry = entry_of(kind, number)
    return entry and not entry[DISPATCH] and entry[AT] or 0
  end

  -- P8 (dispatch report): gives an open charge its time, which is not before its grant.
  function windows.set_dispatch_time(number, at, dispatch)
    local entry, block = entry_of(windows.GRANT, number)
    if not entry or entry[DISPATCH] ~= OPEN then return end
    at = max(at, entry[AT])
    local of = by_id[entry[DEPLOYMENT]]
    if of and of.windows[1] and #state.former == 0 and at + of.windows[1].span > state.clock then
      -- It stays in all windows.
      entry[AT], entry[DISPATCH], entry[LEAVES] = at, dispatch or false, at + of.windows[1].span
      entry[GENERATION] = state.generation
      mark(block)
      return
    end
    windows.insert(windows.GRANT, number, entry[DEPLOYMENT], entry[REQUESTS], entry[INPUT], entry[OUTPUT], at, dispatch)
  end

  -- The session has ended at this time: an unreported dispatch was made before, or never will be (P9).
  function windows.assume_dispatched(number, at) windows.set_dispatch_time(number, at, ASSUMED) end

  -- P14 (corrections): shrinks an entry's tokens in place, each kind separately, and never enlarges them.
  function windows.shrink(number, input, output)
    local entry, block = entry_of(windows.GRANT, number)
    if not entry then return end
    local less_input, less_output = max(entry[INPUT] - input, 0), max(entry[OUTPUT] - output, 0)
    if less_input == 0 and less_output == 0 then return end
    local former, spans = list_of_entry(entry)
    count(former, entry[DEPLOYMENT], 0, -less_input, -less_output, entry[STAGE], #spans)
    if group.paces() then pace.refund(entry[DEPLOYMENT], 0, less_input, less_output) end
    entry[INPUT], entry[OUTPUT] = entry[INPUT] - less_input, entry[OUTPUT] - less_output
    mark(block)
  end

  -- The blocks of a part of the order, read.
  local function blocks_of(found)
    local wanted, all = {}, {}
    for i = 1, #found, 2 do
      local name, n = found[i], #wanted
      wanted[n + 1], wanted[n + 2] = tonumber(name:sub(1, 1)), tonumber(name:sub(2))
    end
    fetch_blocks(wanted)
    for i = 1, #wanted, 2 do
      local block = block_of(wanted[i], wanted[i + 1])
      -- The order decides: after a partial write a block's entries may say something else.
      block.score = tonumber(found[i + 1])
      all[#all + 1] = block
    end
    return all
  end

  -- Drops the former lists that count nothing any more.
  local function drop_empty()
    if #state.former == 0 or state.recount then return end
    local kept = {}
    for _, former in ipairs(state.former) do
      local counts = false
      for i = 2, #former.totals do counts = counts or former.totals[i] ~= 0 end
      if counts then kept[#kept + 1] = former end
    end
    state.former = kept
  end

  -- Lets an entry leave all windows whose time has come. Returns how many, and whether it has left the last one. An open charge stays, and is checked again later.
  local function leave(entry)
    if entry[DISPATCH] == OPEN then
      entry[LEAVES] = state.clock + group.check_again()
      return 1, false
    end
    local left = 0
    local former, spans = list_of_entry(entry)
    while entry[LEAVES] <= state.clock do
      local stage = entry[STAGE]
      left = left + 1
      count(former, entry[DEPLOYMENT], -entry[REQUESTS], -entry[INPUT], -entry[OUTPUT], stage, stage + 1)
      local following = spans[stage + 2]
      if not following then return left, true end
      entry[STAGE], entry[LEAVES] = stage + 1, entry[AT] + following.span
    end
    return left, false
  end

  -- Lets entries leave their windows, block by block until MAX_DROPS have (P16).
  function windows.expire()
    write_moves()
    if state.clock < state.expires_at then return drop_empty() end
    -- The first few are mostly all.
    local found = call('ZRANGE', WINDOWS, 0, 7, 'WITHSCORES')
    if #found == 16 and tonumber(found[16]) <= state.clock then
      found = call('ZRANGEBYSCORE', WINDOWS, '-inf', format('%.0f', state.clock), 'WITHSCORES', 'LIMIT', 0, MAX_DROPS)
      state.expires_at = 0
    else
      state.expires_at = NEVER
      for i = #found, 1, -2 do
        local at = tonumber(found[i])
        if at > state.clock then
          state.expires_at = min(at, NEVER)
          found[i], found[i - 1] = nil, nil
        end
      end
    end
    local expired = 0
    for _, block in ipairs(blocks_of(found)) do
      if expired >= MAX_DROPS then
        state.expires_at = 0
        break
      end
      mark(block)
      for slot = 0, BLOCK - 1 do
        local entry = block.entries[slot]
        if entry and entry[LEAVES] <= state.clock then
          local left, last = leave(entry)
          expired = expired + left
          if last then block.entries[slot] = nil end
        end
      end
    end
    drop_empty()
    step.more = step.more or expired >= MAX_DROPS
  end

  local function retire(deployment, spans)
    local total = raw_total(deployment)
    if totals:get(deployment) then totals:put(deployment, total[1] > 0 and { total[1] } or false) end
    total[1] = 0
    state.former[#state.former + 1] = { generation = state.generation, deployment = deployment, windows = spans, totals = total }
  end

  local function begin_recount()
    state.generation = state.generation + 1
    state.recount = #state.former > 0 and 0 or nil
  end

  -- Other lists of windows are in force: entries of the former ones are recounted in parts (P16), and count by those until then.
  function windows.change_lists(former, same)
    for _, deployment in ipairs(former.deployments) do
      if not same[deployment.id] then retire(deployment.id, deployment.windows) end
    end
    begin_recount()
  end

  -- The group recovers: all entries are recounted, without the open charges. After a partial write the totals may be wrong, so none is used: nothing is granted before the
  -- recount has ended.
  function windows.recount_all()
    for _, deployment in ipairs(rules.deployments) do
      retire(deployment.id, deployment.windows)
      for _, former in ipairs(state.former) do
        if former.deployment == deployment.id then former.totals = { 0 } end
      end
    end
    begin_recount()
  end

  -- A part of all entries, from a time in the order of their blocks on (P16): kind, number and entry of each; and the time where the next part begins.
  function windows.part(from)
    write_moves()
    local part, wanted, last, rank = {}, MAX_RECOUNT, from, nil
    local found = call('ZRANGEBYSCORE', WINDOWS, format('%.0f', from), format('%.0f', NEVER), 'WITHSCORES', 'LIMIT', 0, MAX_RECOUNT + 1)
    local all = blocks_of(found)
    local following
    for i, block in ipairs(all) do
      local at = tonumber(found[2 * i])
      -- A part has all blocks of its last time, because the next one begins at a time.
      if #part >= 3 * wanted and at > last then
        following = last + 1
        break
      end
      last = at
      for slot = 0, BLOCK - 1 do
        local entry, n = block.entries[slot], #part
        if entry then part[n + 1], part[n + 2], part[n + 3] = block.kind, block.base + slot, entry end
      end
      rank = i
    end
    if not following and rank and rank == MAX_RECOUNT + 1 then
      local of_time = call('ZRANGEBYSCORE', WINDOWS, format('%.0f', last), format('%.0f', last), 'WITHSCORES')
      local known = {}
      for _, block in ipairs(all) do known[block] = true end
      for _, block in ipairs(blocks_of(of_time)) do
        if not known[block] then
          for slot = 0, BLOCK - 1 do
            local entry, n = block.entries[slot], #part
            if entry then part[n + 1], part[n + 2], part[n + 3] = block.kind, block.base + slot, entry end
          end
        end
      end
      following = last + 1
    end
    if not following and #part >= 3 * wanted then following = last + 1 end
    return part, following
  end

  -- Recounts a part of the entries.
  function windows.recount()
    local recovering = state.recovery ~= nil
    local part, following = windows.part(state.recount)
    -- The blocks of this part are recounted wholly, wherever they move.
    state.recount = nil
    for i = 1, #part, 3 do
      local kind, number, entry = part[i], part[i + 1], part[i + 2]
      local void = recovering and entry[DISPATCH] == OPEN
      if void or (list_of_entry(entry) and by_id[entry[DEPLOYMENT]]) then
        windows.remove(kind, number)
        if not void then windows.add(kind, number, entry[DEPLOYMENT], entry[REQUESTS], entry[INPUT], entry[OUTPUT], entry[AT], entry[DISPATCH]) end
      end
    end
    state.recount = following
    if following then step.more = true else drop_empty() end
  end

  -- P13 (conservative charges): sums up what is reported of the use that a usage snapshot shows (`used`, by deployment), a part in each step (P16): `reported.by`. In
  -- src/transition/recovery.rs this is a part of `sum_reported`.
  function windows.sum_reported(reported, number, at, used)
    local part, following = windows.part(reported.from)
    for i = 1, #part, 3 do
      local entry = part[i + 2]
      local of = used[entry[DEPLOYMENT]]
      if of then
        local is_grant = part[i] == windows.GRANT
        local existed = is_grant and part[i + 1] <= number or not is_grant and entry[AT] <= at
        if existed and (entry[DISPATCH] == OPEN or entry[AT] + of[3] > at) then
          local sum = reported.by[entry[DEPLOYMENT]] or { 0, 0, 0 }
          reported.by[entry[DEPLOYMENT]] = { sum[1] + entry[REQUESTS], sum[2] + entry[INPUT], sum[3] + entry[OUTPUT] }
        end
      end
    end
    reported.from = following
  end

  -- Whether an expiry comes before one of this time: by time, kind and number.
  local function comes_before(known, at, block, slot)
    if known[1] ~= at then return known[1] < at end
    local other = known[2]
    if other.kind ~= block.kind then return other.kind < block.kind end
    return other.base + known[3] < block.base + slot
  end

  -- Expiries in order of time, as a function that gives the next: the time, the entry, and the index of the window that it leaves, from 0 on. An entry that leaves a
  -- shorter window follows again when it leaves the next. Open charges leave at this time at the earliest. nil: there are no more.
  function windows.expiries()
    write_moves()
    local found, i, from, ended = {}, 1, 0, false
    -- Those that may be next, the last one first: the entries of the blocks that were read.
    local later = {}
    local function insert(at, block, slot, stage)
      local k = #later
      while k > 0 and comes_before(later[k], at, block, slot) do k = k - 1 end
      table.insert(later, k + 1, { at, block, slot, stage })
    end
    local function read_more()
      -- The first few are mostly enough. If not, all others are read that may be.
      local to = from == 0 and 3 or from + MAX_WALK
      found, i = call('ZRANGE', WINDOWS, from, to, 'WITHSCORES'), 1
      ended, from = #found < 2 * (to - from + 1), to + 1
      if found[#found - 1] == '' then
        -- The last one is the placeholder.
        found[#found], found[#found - 1], ended = nil, nil, true
      end
      blocks_of(found)
    end
    return function()
      while true do
        if not found[i] and not ended then read_more() end
        local next_at = found[i] and tonumber(found[i + 1])
        local first = later[#later]
        if first and not (next_at and next_at <= first[1]) then
          later[#later] = nil
          local at, block, slot, stage = unpack(first)
          local entry = block.entries[slot]
          local _, spans = list_of_entry(entry)
          local following = spans[stage + 2]
          if following then insert(max(entry[AT] + following.span, at), block, slot, stage + 1) end
          return at, entry, stage
        end
        if not next_at then return nil end
        local name = found[i]
        local block = block_of(tonumber(name:sub(1, 1)), tonumber(name:sub(2)))
        for slot, entry in pairs(block.entries) do insert(entry[LEAVES], block, slot, entry[STAGE]) end
        i = i + 2
      end
    end
  end

  -- The earliest time at which one of the blocked deployments has room for the demand if nothing else happens, or `best` if that is earlier. `blocked`: by id, with the
  -- time from which each may be used. It is exact unless more than MAX_WALK entries must expire before, or one of them is open: then it is a lower bound.
  function windows.next_free(blocked, demand, best)
    local waiting, left = {}, 0
    for id, one in pairs(blocked) do
      local copy = {}
      for i, value in ipairs(total_of(id)) do copy[i] = value end
      waiting[id], left = { total = copy, from = one.from, of = one.deployment }, left + 1
    end
    if left == 0 then return best end
    write_moves()
    local expiries, walked = windows.expiries(), 0
    while true do
      local at, entry, stage = expiries()
      if not at or left == 0 or (best and best <= at) then break end
      if walked == MAX_WALK then return at end
      walked = walked + 1
      local deployment = entry[DEPLOYMENT]
      local blocked_one = waiting[deployment]
      if blocked_one then
        -- The entry is not recounted yet, so this is a lower bound.
        if list_of_entry(entry) then return min(best or at, at) end
        local total = blocked_one.total
        for amount = REQUESTS, OUTPUT do total[place(stage + 1, amount)] = total[place(stage + 1, amount)] - entry[amount] end
        if fits(blocked_one.of, total, demand) then
          at = max(at, blocked_one.from)
          best = min(best or at, at)
          waiting[deployment], left = nil, left - 1
        end
      end
    end
    return best
  end

  return function() moved, changed = {}, {} end
end)
