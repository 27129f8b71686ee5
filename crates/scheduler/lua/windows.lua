-- Sliding windows: one entry per grant, sorted by the time when it expires, and totals by deployment. The functions of src/transition/windows.rs, in its order; its head
-- says what differs. What reads and writes, and the counts of open calls, exist only here. `refund`, `reported_at`, `assume_dispatched`, `counted` and `add_open_charge` are
-- parts of src/transition/ops.rs, ending.rs and grants.rs, and so is `next_free`: here they need entries, which only this part reads.

windows = part(function(windows)
  local entries = store.hash()
  -- Entries and totals are arrays, because there are many. An entry has its deployment, its cost, its time, how many of its deployment's windows, the shorter ones, it has
  -- left, what its time is (P8), and the generation of the list of windows that counts it. Its time is that of its dispatch as reported (false), the end of its session
  -- (ASSUMED), or that of its grant as long as the dispatch is not reported (OPEN). A list of windows that was in force up to a generation is kept in `state.former`, with
  -- what it counts, until all of that is recounted.
  -- A total has the open calls, then requests, input and output tokens of each window.
  local DEPLOYMENT, REQUESTS, INPUT, OUTPUT, AT, STAGE, DISPATCH, GENERATION = 1, 2, 3, 4, 5, 6, 7, 8
  local ASSUMED, OPEN = 1, 2
  -- Key -> its time in the order, false: removed. Written before the order is read.
  local moves

  function windows.grant(number) return '0' .. store.id(number) end
  function windows.excess(number) return '1' .. store.id(number) end
  function windows.conservative(number) return '2' .. store.id(number) end

  local function write_moves()
    if next(moves) == nil then return end
    store.move_all(WINDOWS, moves)
    moves = {}
  end

  function windows.save()
    write_moves()
    entries:save()
  end

  function windows.fetch(keys) entries:fetch(keys) end

  local function raw_total(deployment) return totals:get(deployment) or { 0 } end

  -- The part of a limit that a ticket may fill, in millionths of it (`left`): at least one unit, or the ticket would never be granted.
  function windows.part_of(limit, left)
    if limit <= 0 or left == WHOLE then return limit end
    return max(floor(limit * left / WHOLE), 1)
  end

  -- Where a total has an amount of its i-th window: amounts begin at the same index, and have the same order, as in an entry.
  local function place(i, amount) return AMOUNTS * (i - 1) + amount end

  local function within(limit, used, left) return limit == NONE or used <= windows.part_of(limit, left) end

  -- Whether a ticket fits under each limit of a window, beside what counts there.
  function windows.fits_kinds(window, i, total, demand)
    local limits, left = window.limits, demand.left
    local requests, input = (total[place(i, REQUESTS)] or 0) + 1, (total[place(i, INPUT)] or 0) + demand.input
    local output = (total[place(i, OUTPUT)] or 0) + demand.output
    return within(limits[LIMIT_requests], requests, left), within(limits[LIMIT_tokens], input + output, left),
      within(limits[LIMIT_input_tokens], input, left), within(limits[LIMIT_output_tokens], output, left)
  end

  local function fits(deployment, total, demand)
    for i, window in ipairs(deployment.windows) do
      local requests, tokens, input, output = windows.fits_kinds(window, i, total, demand)
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
    for _, former in ipairs(state.former) do
      if former.generation >= generation and former.deployment == deployment then return former, former.windows end
    end
    local known = by_id[deployment]
    return nil, known and known.windows or { { span = rules.memory } }
  end

  local function list_of_entry(entry) return list_of(entry[DEPLOYMENT], entry[GENERATION]) end

  -- The generation of new entries. A deployment that the rules no longer name continues with the list that last counted it.
  local function generation_for(deployment)
    local generation = state.generation
    if by_id[deployment] then return generation end
    for _, former in ipairs(state.former) do
      if former.deployment == deployment then generation = former.generation end
    end
    return generation
  end

  -- What counts of a deployment. An entry that is not recounted yet counts as in the next longer window of its former list: too much rather than too little.
  local function total_of(deployment)
    local total, known = raw_total(deployment), by_id[deployment]
    if #state.former == 0 or not known then return total end
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
    if grow or not former then
      for i = #total + 1, place(to, OUTPUT) do total[i] = 0 end
    end
    for i = from + 1, to do
      local of_requests, of_input, of_output = place(i, REQUESTS), place(i, INPUT), place(i, OUTPUT)
      if total[of_input] then
        total[of_requests] = total[of_requests] + requests
        total[of_input] = total[of_input] + input
        total[of_output] = total[of_output] + output
      end
    end
    if not former then totals:put(deployment, total) end
  end

  function windows.remove(key)
    local entry = entries:get(key)
    if not entry then return end
    entries:put(key, false)
    moves[key] = false
    local former, spans = list_of_entry(entry)
    count(former, entry[DEPLOYMENT], -entry[REQUESTS], -entry[INPUT], -entry[OUTPUT], entry[STAGE], #spans)
    return entry
  end

  -- Removes the charge of a grant.
  function windows.refund(key)
    local entry = windows.remove(key)
    if entry and group.paces() then pace.refund(entry[DEPLOYMENT], entry[REQUESTS], entry[INPUT], entry[OUTPUT]) end
  end

  -- Adds an entry whose key is new. While the group recovers no entry expires, so that reports of them can be compared with the newest usage snapshot (P13).
  function windows.add(key, deployment, requests, input, output, at, dispatch)
    local generation, stage, now = generation_for(deployment), 0, state.recovery and 0 or state.clock
    local former, spans = list_of(deployment, generation)
    while dispatch ~= OPEN and stage < #spans and at + spans[stage + 1].span <= now do stage = stage + 1 end
    if stage == #spans then return end
    moves[key] = at + spans[stage + 1].span
    -- What counts in a shorter window counts in the longest one too.
    local counted = former and former.totals or raw_total(deployment)
    local function room(amount, of) return min(amount, MAX_TOTAL - (counted[place(#spans, of)] or 0)) end
    requests, input, output = room(requests, REQUESTS), room(input, INPUT), room(output, OUTPUT)
    count(former, deployment, requests, input, output, stage, #spans, true)
    entries:put(key, { deployment, requests, input, output, at, stage, dispatch or false, generation })
  end

  function windows.add_open_charge(key, deployment, input, output) windows.add(key, deployment, 1, input, output, state.clock, OPEN) end

  -- Adds an entry, or replaces the one of the same key.
  function windows.insert(key, deployment, requests, input, output, at, dispatch)
    windows.remove(key)
    windows.add(key, deployment, requests, input, output, at, dispatch)
  end

  -- The reported time of a dispatch, or 0.
  function windows.reported_at(key)
    local entry = entries:get(key)
    return entry and not entry[DISPATCH] and entry[AT] or 0
  end

  -- P8 (dispatch report): gives an open charge its time, which is not before its grant.
  function windows.set_dispatch_time(key, at, dispatch)
    local entry = entries:get(key)
    if not entry or entry[DISPATCH] ~= OPEN then return end
    windows.insert(key, entry[DEPLOYMENT], entry[REQUESTS], entry[INPUT], entry[OUTPUT], max(at, entry[AT]), dispatch)
  end

  -- The session has ended at this time: an unreported dispatch was made before, or never will be (P9).
  function windows.assume_dispatched(key, at) windows.set_dispatch_time(key, at, ASSUMED) end

  -- P14 (corrections): shrinks an entry's tokens in place, each kind separately, and never enlarges them.
  function windows.shrink(key, input, output)
    local entry = entries:get(key)
    if not entry then return end
    local less_input, less_output = max(entry[INPUT] - input, 0), max(entry[OUTPUT] - output, 0)
    if less_input == 0 and less_output == 0 then return end
    local former, spans = list_of_entry(entry)
    count(former, entry[DEPLOYMENT], 0, -less_input, -less_output, entry[STAGE], #spans)
    if group.paces() then pace.refund(entry[DEPLOYMENT], 0, less_input, less_output) end
    entry[INPUT], entry[OUTPUT] = entry[INPUT] - less_input, entry[OUTPUT] - less_output
    entries:put(key, entry)
  end

  -- The next expiry, of the entries that were read in order (from i on) and of those that follow again for their next window: time, key, stage; and the next i.
  local function next_expiry(found, i, following)
    local key, at, other = found[i], tonumber(found[i + 1]), following[1]
    if other and (not key or other.at < at or (other.at == at and other.key < key)) then
      table.remove(following, 1)
      return other.at, other.key, other.stage, i
    end
    if key then return at, key, entries:get(key)[STAGE], i + 2 end
  end

  local function add_following(following, at, key, stage)
    local i = #following
    while i > 0 and (following[i].at > at or (following[i].at == at and following[i].key > key)) do i = i - 1 end
    table.insert(following, i + 1, { at = at, key = key, stage = stage })
  end

  local function fetch_found(found)
    local keys = {}
    for i = 1, #found, 2 do keys[#keys + 1] = found[i] end
    entries:fetch(keys)
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

  -- Lets at most MAX_DROPS entries leave a window (P16). Open charges stay, and are checked again later.
  function windows.expire()
    write_moves()
    local found = call('ZRANGEBYSCORE', WINDOWS, '-inf', format('%.0f', state.clock), 'WITHSCORES', 'LIMIT', 0, MAX_DROPS)
    if #found == 0 then return drop_empty() end
    fetch_found(found)
    local expired, i, later = 0, 1, {}
    while expired < MAX_DROPS do
      local _, key, stage, after = next_expiry(found, i, later)
      if not key then break end
      i, expired = after, expired + 1
      local entry = entries:get(key)
      local former, spans = list_of_entry(entry)
      local following = spans[stage + 2]
      if entry[DISPATCH] == OPEN then
        moves[key] = state.clock + group.check_again()
      else
        count(former, entry[DEPLOYMENT], -entry[REQUESTS], -entry[INPUT], -entry[OUTPUT], stage, stage + 1)
        if following then
          local at = entry[AT] + following.span
          entry[STAGE], moves[key] = stage + 1, at
          if at <= state.clock then add_following(later, at, key, stage + 1) end
          entries:put(key, entry)
        else
          moves[key] = false
          entries:put(key, false)
        end
      end
    end
    drop_empty()
    step.more = step.more or expired == MAX_DROPS
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

  -- A part of all entries, from a time in the order on (P16): their keys; and the time where the next part begins.
  function windows.part(from)
    write_moves()
    local function from_to(least, most, ...) return call('ZRANGEBYSCORE', WINDOWS, format('%.0f', least), format('%.0f', most), 'WITHSCORES', ...) end
    local found = from_to(from, NEVER, 'LIMIT', 0, MAX_RECOUNT)
    local last, keys = tonumber(found[#found]), {}
    local ended = #found < 2 * MAX_RECOUNT
    for i = 1, #found, 2 do
      if ended or tonumber(found[i + 1]) < last then keys[#keys + 1] = found[i] end
    end
    if not ended then
      -- A part has all entries of its last time, because the next one begins at a time.
      local of_time = from_to(last, last)
      for i = 1, #of_time, 2 do keys[#keys + 1] = of_time[i] end
    end
    entries:fetch(keys)
    return keys, not ended and last + 1 or nil
  end

  -- Recounts a part of the entries.
  function windows.recount()
    local recovering = state.recovery ~= nil
    local keys, following = windows.part(state.recount)
    for _, key in ipairs(keys) do
      local entry = entries:get(key)
      if entry then
        local void = recovering and entry[DISPATCH] == OPEN
        if void or (list_of_entry(entry) and by_id[entry[DEPLOYMENT]]) then
          windows.remove(key)
          if not void then windows.add(key, entry[DEPLOYMENT], entry[REQUESTS], entry[INPUT], entry[OUTPUT], entry[AT], entry[DISPATCH]) end
        end
      else
        moves[key] = false
      end
    end
    state.recount = following
    if following then step.more = true else drop_empty() end
  end

  -- P13 (conservative charges): sums up what is reported of the use that a usage snapshot shows (`used`, by deployment), a part in each step (P16): `reported.by`. In
  -- src/transition/recovery.rs this is a part of `sum_reported`.
  function windows.sum_reported(reported, number, at, used)
    local keys, following = windows.part(reported.from)
    for _, key in ipairs(keys) do
      local entry = entries:get(key)
      local of = entry and used[entry[DEPLOYMENT]]
      if of then
        local is_grant = key:sub(1, 1) == '0'
        local existed = is_grant and tonumber(key:sub(2)) <= number or not is_grant and entry[AT] <= at
        if existed and (entry[DISPATCH] == OPEN or entry[AT] + of[3] > at) then
          local sum = reported.by[entry[DEPLOYMENT]] or { 0, 0, 0 }
          reported.by[entry[DEPLOYMENT]] = { sum[1] + entry[REQUESTS], sum[2] + entry[INPUT], sum[3] + entry[OUTPUT] }
        end
      end
    end
    reported.from = following
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
    local found, i, later, from, ended = {}, 1, {}, 0, false
    for walked = 0, MAX_WALK do
      if not found[i] and not ended then
        -- The first few are mostly enough. If not, all others are read that may be.
        local to = from == 0 and 7 or MAX_WALK
        found, i = call('ZRANGE', WINDOWS, from, to, 'WITHSCORES'), 1
        ended, from = to == MAX_WALK or #found < 2 * (to - from + 1), to + 1
        if found[#found - 1] == '' then
          -- The last one is the placeholder.
          found[#found], found[#found - 1], ended = nil, nil, true
        end
        fetch_found(found)
      end
      local at, key, stage, after = next_expiry(found, i, later)
      if not key or left == 0 or (best and best <= at) then break end
      if walked == MAX_WALK then return at end
      i = after
      local entry = entries:get(key)
      local deployment = entry[DEPLOYMENT]
      local former, spans = list_of_entry(entry)
      local following, blocked_one = spans[stage + 2], waiting[deployment]
      if following then add_following(later, max(entry[AT] + following.span, at), key, stage + 1) end
      -- The entry is not recounted yet, so this is a lower bound.
      if blocked_one and former then return min(best or at, at) end
      if blocked_one then
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

  return function()
    entries:begin(ENTRIES)
    moves = {}
  end
end)
