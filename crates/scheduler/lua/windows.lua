-- Windows: entries by kind and number, sorted by the time when they leave their window; and what counts, by deployment ---

windows = part(function(windows)
  local entries, totals = store.hash(ENTRIES), store.hash(TOTALS)
  -- Arrays, as there are many. An entry: its deployment, cost, time, how many of its deployment's windows, the shorter ones, it has left; and whether its time is that of
  -- its dispatch (P8): nil, it was reported; assumed, the end of its session; open, it was not reported yet, and it is the time of its grant.
  -- A total: open calls, then requests, input and output tokens of each window.
  -- The last: under which lists of windows it is counted. A list that was in force up to a generation is kept in `state.former`, with what it still counts, until the recount has
  -- come to all of that.
  local DEPLOYMENT, REQUESTS, INPUT, OUTPUT, AT, STAGE, DISPATCH, GENERATION = 1, 2, 3, 4, 5, 6, 7, 8
  local ASSUMED, OPEN = 1, 2
  -- Entry -> when it leaves, false: it does not wait. Written before the order is read.
  local moves = {}

  function windows.grant(number) return '0' .. store.id(number) end
  function windows.excess(number) return '1' .. store.id(number) end
  function windows.conservative(number) return '2' .. store.id(number) end

  local function write_moves()
    store.move_all(WINDOWS, moves)
    moves = {}
  end

  function windows.save()
    write_moves()
    entries:save()
    totals:save()
  end

  function windows.fetch(keys) entries:fetch(keys) end

  -- Everything about the deployments is needed sooner or later.
  function windows.fetch_totals() totals:fetch(group.deployments()) end

  local function raw_total(deployment) return totals:get(deployment) or { 0 } end

  -- By which list of windows an entry of this generation is counted (nil: the one in force), and what it passes through. An entry of a deployment that the rules do not
  -- name is kept for as long as any.
  local function list_of(deployment, generation)
    for _, former in ipairs(state.former) do
      if former.generation >= generation and former.deployment == deployment then return former, former.windows end
    end
    local known = by_id[deployment]
    return nil, known and known.windows or { { span = rules.memory } }
  end

  local function list_of_entry(entry) return list_of(entry[DEPLOYMENT], entry[GENERATION]) end

  -- The generation of what is counted now. A deployment that no rules name any more goes on by the list that it was last counted by.
  local function generation_for(deployment)
    local generation = state.generation
    if by_id[deployment] then return generation end
    for _, former in ipairs(state.former) do
      if former.deployment == deployment then generation = former.generation end
    end
    return generation
  end

  -- What counts now of a deployment. What is not recounted yet counts as in the next longer window it was counted in: rather too much.
  local function total_of(deployment)
    local total, known = raw_total(deployment), by_id[deployment]
    if #state.former == 0 or not known then return total end
    local all
    for _, former in ipairs(state.former) do
      if former.deployment == deployment then
        if not all then
          all = { total[1] }
          for i = 2, 3 * #known.windows + 1 do all[i] = total[i] or 0 end
        end
        for i, window in ipairs(known.windows) do
          local at = floor((#former.totals - 1) / 3)
          for k = #former.windows, 1, -1 do
            if former.windows[k].span >= window.span then at = k end
          end
          for kind = -1, 1 do all[3 * i + kind] = all[3 * i + kind] + (former.totals[3 * at + kind] or 0) end
        end
      end
    end
    return all or total
  end

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

  -- Requests, input and output tokens that count in the index-th window.
  function windows.used(deployment, index)
    local total = total_of(deployment)
    return total[3 * index - 1] or 0, total[3 * index] or 0, total[3 * index + 1] or 0
  end

  -- `grow`: what is not counted yet by a former list is not, while the group recovers (its totals may be untrue).
  local function count(former, deployment, requests, input, output, from, to, grow)
    local total = former and former.totals or raw_total(deployment)
    if grow or not former then
      for i = #total + 1, 3 * to + 1 do total[i] = 0 end
    end
    for i = from + 1, to do
      if total[3 * i] then
        total[3 * i - 1] = total[3 * i - 1] + requests
        total[3 * i] = total[3 * i] + input
        total[3 * i + 1] = total[3 * i + 1] + output
      end
    end
    if not former then totals:put(deployment, total) end
  end

  -- What may be filled of a limit by whom so many millionths are left (`left`): one unit at least, or it would never go.
  function windows.part_of(limit, left)
    if limit <= 0 or left == WHOLE then return limit end
    return max(floor(limit * left / WHOLE), 1)
  end

  local function within(limit, used, left) return limit == NONE or used <= windows.part_of(limit, left) end

  -- Whether a ticket fits under each limit of a window, on top of what counts: `total` as above.
  function windows.fits(window, i, total, demand)
    local limits, left = window.limits, demand.left
    local input, output = (total[3 * i] or 0) + demand.input, (total[3 * i + 1] or 0) + demand.output
    return within(limits[1], (total[3 * i - 1] or 0) + 1, left), within(limits[2], input + output, left), within(limits[3], input, left),
      within(limits[4], output, left)
  end

  local function fits_all(deployment, total, demand)
    for i, window in ipairs(deployment.windows) do
      local requests, tokens, input, output = windows.fits(window, i, total, demand)
      if not (requests and tokens and input and output) then return false end
    end
    return true
  end

  windows.total_of = total_of

  function windows.free(deployment, demand) return fits_all(deployment, total_of(deployment.id), demand) end

  -- Whether a ticket fits on an idle deployment.
  function windows.ever_fits(deployment, demand) return deployment.concurrency ~= 0 and fits_all(deployment, {}, demand) end

  -- A deployment whose grants are counted.
  function windows.counts(deployment)
    local known = by_id[deployment]
    return known and #known.windows > 0 and known
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

  -- Undoes a grant's charge.
  function windows.refund(key)
    local entry = windows.remove(key)
    if entry and group.paces() then pace.take_back(entry[DEPLOYMENT], entry[REQUESTS], entry[INPUT], entry[OUTPUT]) end
  end

  -- Adds an entry whose key is new. While the group recovers none leaves, so that what is told of them can be held against the newest view (P13).
  function windows.add(key, deployment, requests, input, output, at, dispatch)
    local generation, stage, now = generation_for(deployment), 0, state.recovery and 0 or state.clock
    local former, spans = list_of(deployment, generation)
    while dispatch ~= OPEN and stage < #spans and at + spans[stage + 1].span <= now do stage = stage + 1 end
    if stage == #spans then return end
    moves[key] = at + spans[stage + 1].span
    -- All that counts in a shorter window counts in the longest one, too.
    local counted = former and former.totals or raw_total(deployment)
    local function left(amount, kind) return min(amount, MAX_TOTAL - (counted[3 * #spans + kind] or 0)) end
    requests, input, output = left(requests, -1), left(input, 0), left(output, 1)
    count(former, deployment, requests, input, output, stage, #spans, true)
    entries:put(key, { deployment, requests, input, output, at, stage, dispatch or false, generation })
  end

  function windows.add_open_charge(key, deployment, input, output) windows.add(key, deployment, 1, input, output, state.clock, OPEN) end

  -- Adds an entry, or replaces the one of the same key.
  function windows.insert(key, deployment, requests, input, output, at, dispatch)
    windows.remove(key)
    windows.add(key, deployment, requests, input, output, at, dispatch)
  end

  -- When an entry's call was dispatched, as reported; 0 where that is not known.
  function windows.reported(key)
    local entry = entries:get(key)
    return entry and not entry[DISPATCH] and entry[AT] or 0
  end

  -- P8 (the dispatch is reported): an open charge gets its time, which is not before its grant.
  function windows.date(key, at, dispatch)
    local entry = entries:get(key)
    if not entry or entry[DISPATCH] ~= OPEN then return end
    windows.insert(key, entry[DEPLOYMENT], entry[REQUESTS], entry[INPUT], entry[OUTPUT], max(at, entry[AT]), dispatch)
  end

  -- The session has ended: what was not reported was dispatched by now, or never will be (P9).
  function windows.assume_dispatched(key, at) windows.date(key, at, ASSUMED) end

  -- Shrinks an entry's tokens in place, each kind on its own; never grows them (P14).
  function windows.shrink(key, input, output)
    local entry = entries:get(key)
    if not entry then return end
    local less_input, less_output = max(entry[INPUT] - input, 0), max(entry[OUTPUT] - output, 0)
    if less_input == 0 and less_output == 0 then return end
    local former, spans = list_of_entry(entry)
    count(former, entry[DEPLOYMENT], 0, -less_input, -less_output, entry[STAGE], #spans)
    if group.paces() then pace.take_back(entry[DEPLOYMENT], 0, less_input, less_output) end
    entry[INPUT], entry[OUTPUT] = entry[INPUT] - less_input, entry[OUTPUT] - less_output
    entries:put(key, entry)
  end

  -- Of those read in order (from i on) and those that come again for their next window, the first to leave: time, key, stage; and the next i.
  local function next_to_leave(found, i, again)
    local key, at, other = found[i], tonumber(found[i + 1]), again[1]
    if other and (not key or other.at < at or (other.at == at and other.key < key)) then
      table.remove(again, 1)
      return other.at, other.key, other.stage, i
    end
    if key then return at, key, entries:get(key)[STAGE], i + 2 end
  end

  local function come_again(again, at, key, stage)
    local i = #again
    while i > 0 and (again[i].at > at or (again[i].at == at and again[i].key > key)) do i = i - 1 end
    table.insert(again, i + 1, { at = at, key = key, stage = stage })
  end

  local function fetch_found(found)
    local keys = {}
    for i = 1, #found, 2 do keys[#keys + 1] = found[i] end
    entries:fetch(keys)
  end

  -- Forgets the lists that count nothing any more.
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

  -- Lets at most 1,000 entries leave a window whose time is up (P16). Open ones stay, and are looked at again later.
  function windows.expire()
    write_moves()
    local found = call('ZRANGEBYSCORE', WINDOWS, '-inf', format('%.0f', state.clock), 'WITHSCORES', 'LIMIT', 0, MAX_DROPS)
    if #found == 0 then return drop_empty() end
    fetch_found(found)
    local expired, i, again = 0, 1, {}
    while expired < MAX_DROPS do
      local _, key, stage, after = next_to_leave(found, i, again)
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
          if at <= state.clock then come_again(again, at, key, stage + 1) end
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

  -- Other lists of windows are in force: what is counted by the former ones is recounted, in parts (P16), and counts by those until then.
  function windows.relist(former, alike)
    for _, deployment in ipairs(former.deployments) do
      if not alike[deployment.id] then retire(deployment.id, deployment.windows) end
    end
    begin_recount()
  end

  -- The group recovers: everything is recounted, without the charges whose dispatch was not reported. Totals may be untrue here, after a write that was cut short, so none is used: nothing is
  -- granted before the recount has ended.
  function windows.recount_all()
    for _, deployment in ipairs(rules.deployments) do
      retire(deployment.id, deployment.windows)
      for _, former in ipairs(state.former) do
        if former.deployment == deployment.id then former.totals = { 0 } end
      end
    end
    begin_recount()
  end

  -- A part of all entries, from a time of the order on (P16): their keys, read; and where the next part begins.
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
      -- All of one time, so that the time tells where to go on.
      local of_time = from_to(last, last)
      for i = 1, #of_time, 2 do keys[#keys + 1] = of_time[i] end
    end
    entries:fetch(keys)
    return keys, not ended and last + 1 or nil
  end

  -- Recounts a part.
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

  -- P13: adds up what is reported of what counted when a view was taken, a part in each step (P16): `known.by`, by deployment. `used`: the view's, by deployment.
  function windows.sum_known(known, number, at, used)
    local keys, following = windows.part(known.from)
    for _, key in ipairs(keys) do
      local entry = entries:get(key)
      local of = entry and used[entry[DEPLOYMENT]]
      if of then
        local is_grant = key:sub(1, 1) == '0'
        local then_already = is_grant and tonumber(key:sub(2)) <= number or not is_grant and entry[AT] <= at
        if then_already and (entry[DISPATCH] == OPEN or entry[AT] + of[3] > at) then
          local sum = known.by[entry[DEPLOYMENT]] or { 0, 0, 0 }
          known.by[entry[DEPLOYMENT]] = { sum[1] + entry[REQUESTS], sum[2] + entry[INPUT], sum[3] + entry[OUTPUT] }
        end
      end
    end
    known.from = following
  end

  -- When one of the blocked deployments (by id, and since when each may be used otherwise) has room for the demand, if nothing else happens and none is free
  -- before `best`. Exact, unless more than 64 entries have to leave before, or one of them is open: then a lower bound.
  function windows.next_free(blocked, demand, best)
    local waiting, left = {}, 0
    for id, one in pairs(blocked) do
      local copy = {}
      for i, value in ipairs(total_of(id)) do copy[i] = value end
      waiting[id], left = { total = copy, from = one.from, of = one.deployment }, left + 1
    end
    if left == 0 then return best end
    write_moves()
    local found, i, again, from, ended = {}, 1, {}, 0, false
    for walked = 0, MAX_WALK do
      if not found[i] and not ended then
        -- A few mostly tell; if not, all the others that may be looked at.
        local to = from == 0 and 7 or MAX_WALK
        found, i = call('ZRANGE', WINDOWS, from, to, 'WITHSCORES'), 1
        ended, from = to == MAX_WALK or #found < 2 * (to - from + 1), to + 1
        if found[#found - 1] == '' then
          -- The last one: it keeps the key alive.
          found[#found], found[#found - 1], ended = nil, nil, true
        end
        fetch_found(found)
      end
      local at, key, stage, after = next_to_leave(found, i, again)
      if not key or left == 0 or (best and best <= at) then break end
      if walked == MAX_WALK then return at end
      i = after
      local entry = entries:get(key)
      local deployment = entry[DEPLOYMENT]
      local former, spans = list_of_entry(entry)
      local following, blocked_one = spans[stage + 2], waiting[deployment]
      if following then come_again(again, max(entry[AT] + following.span, at), key, stage + 1) end
      -- Not recounted yet: no more than a lower bound.
      if blocked_one and former then return min(best or at, at) end
      if blocked_one then
        local total = blocked_one.total
        -- Amounts have the same order, and begin at the same index, in an entry and in a total of one window.
        for kind = REQUESTS, OUTPUT do total[3 * stage + kind] = total[3 * stage + kind] - entry[kind] end
        if fits_all(blocked_one.of, total, demand) then
          at = max(at, blocked_one.from)
          best = min(best or at, at)
          waiting[deployment], left = nil, left - 1
        end
      end
    end
    return best
  end
end)
