-- The queue: a sorted set of score and member. A member has the start tag (with fair shares), arrival, session, input and output tokens, tenant and cost (with fair
-- shares), the tried deployments, the key and the priority. Entries of equal score sort by member.
--
-- The functions of src/transition/queue.rs, in its order. Those that only read, pack and write, and `count` and `is_full`, exist only here: what is a field or a length
-- there takes a command, or is counted in `state`.

queue = part(function(queue)
  -- The ticket that joins a full queue is the worst itself.
  queue.REFUSE = {}
  -- Entries that the sender's ops add or remove, written together as long as the command stays the same.
  local pending, pending_command
  -- The queue was empty, and all of it is `front`: most tickets are granted at once, and are never stored.
  local unstored
  -- The front of the queue is read in growing parts. Its first `taken` entries are removed together.
  local front, at, taken, part

  -- The priority; or with aging the time at which a ticket of priority 0 would have had to arrive to have this score. Handicaps of more than 142 years are equal.
  -- `arrival`: with fair shares, the start tag.
  function queue.score(priority, arrival)
    if rules.aging == 0 then return priority end
    return min(arrival + max(min(priority * rules.aging, MAX_HANDICAP), -MAX_HANDICAP), NEVER - 1)
  end

  -- An entry is a table of priority, arrival, session, input and output tokens, and the tried deployments as bits, and the key; with fair shares, of tenant, cost and start tag too. An
  -- entry that was read from the queue also has score and member.
  local function member_of(entry)
    if not rules.fair then
      return format('%016d%s%016d%016d%016d%016d%d', entry.arrival, entry.session, entry.input, entry.output, entry.tried, entry.key, entry.priority)
    end
    return format(
      '%016d%016d%s%016d%016d%016d%016d%016d%016d%d', entry.start, entry.arrival, entry.session, entry.input, entry.output, entry.tenant, entry.cost,
      entry.tried, entry.key, entry.priority
    )
  end

  local function entry_of(member, score)
    local function digits(from) return tonumber(member:sub(from, from + 15)) end
    if not rules.fair then
      return {
        score = tonumber(score), member = member, start = 0, arrival = digits(1), session = member:sub(17, 32), input = digits(33),
        output = digits(49), tried = digits(65), key = digits(81), priority = tonumber(member:sub(97)),
      }
    end
    return {
      score = tonumber(score), member = member, start = digits(1), arrival = digits(17), session = member:sub(33, 48), input = digits(49),
      output = digits(65), tenant = digits(81), cost = digits(97), tried = digits(113), key = digits(129),
        priority = tonumber(member:sub(145)),
    }
  end

  -- Only with aging can better tickets wait behind the head. Then entries are written one by one, and those that pacing does not hold, and those that the reserve does
  -- not hold, are counted.
  local function counts_by_priority() return rules.aging > 0 end

  local function count(priority, entries)
    local better = state.better
    if not counts_by_priority() then return end
    if priority <= rules.pace_worse_than then better[1] = better[1] + entries end
    if priority <= rules.reserve_priority then better[2] = better[2] + entries end
  end

  -- P18 (pacing, reserve, aging): a ticket that they do not hold waits behind the head.
  function queue.lifts_pacing() return counts_by_priority() and state.better[1] > 0 end
  function queue.lifts_reserve() return counts_by_priority() and state.better[2] > 0 end

  local function comes_before(a, b)
    if a.score ~= b.score then return a.score < b.score end
    if a.arrival ~= b.arrival then return a.arrival < b.arrival end
    return store.before(member_of(a), member_of(b))
  end

  -- Takes new entries of an empty queue as its front. Returns how many they are.
  local function hold(entries)
    for i = 2, #entries do
      if not comes_before(entries[i - 1], entries[i]) then
        table.sort(entries, comes_before)
        local different = { entries[1] }
        for k = 2, #entries do
          if comes_before(different[#different], entries[k]) then different[#different + 1] = entries[k] end
        end
        entries = different
        break
      end
    end
    front, at, taken, unstored = entries, 1, 0, true
    return #entries
  end

  -- Stores what is left of a queue that is not stored.
  local function store_front()
    unstored = false
    local arguments = {}
    for i = at, #front do
      local n, entry = #arguments, front[i]
      arguments[n + 1], arguments[n + 2] = entry.score, member_of(entry)
    end
    front, at, taken, part = {}, 1, 0, 1
    store.write_all('ZADD', QUEUE, arguments)
  end

  function queue.write_pending()
    if #pending == 0 then return end
    local entries = pending
    local written
    pending = {}
    if pending_command == 'ZADD' and state.size == 0 and taken == 0 and not counts_by_priority() then
      written = hold(entries)
    else
      if unstored then store_front() end
      local arguments = {}
      for _, entry in ipairs(entries) do
        if pending_command == 'ZADD' then arguments[#arguments + 1] = entry.score end
        arguments[#arguments + 1] = member_of(entry)
      end
      written = store.write_all(pending_command, QUEUE, arguments)
      if pending_command == 'ZREM' then written = -written end
    end
    state.size = state.size + written
    step.own.waiting = step.own.waiting + written
    return written
  end

  -- Before the stored queue is read or changed.
  local function write_all()
    queue.write_pending()
    if unstored then store_front() end
  end

  -- A ticket of the sender enters. `former_start`: with fair shares, the start tag that a retry brings back, or 0.
  function queue.enter(entry, former_start, entered)
    if rules.fair then
      if fair.enter(entry, former_start, entered) then step.own.waiting = step.own.waiting + 1 end
      return
    end
    if pending_command ~= 'ZADD' then queue.write_pending() end
    pending_command = 'ZADD'
    entry.score = queue.score(entry.priority, entry.arrival)
    pending[#pending + 1] = entry
    if counts_by_priority() then count(entry.priority, queue.write_pending()) end
  end

  -- A ticket of the sender leaves without a grant.
  function queue.leave(entry)
    if rules.fair then
      if fair.leave(entry, false) then step.own.waiting = step.own.waiting - 1 end
      return
    end
    if pending_command ~= 'ZREM' then queue.write_pending() end
    pending_command = 'ZREM'
    pending[#pending + 1] = entry
    if counts_by_priority() then count(entry.priority, queue.write_pending()) end
  end

  -- With fair shares: inserts a tenant queue's first ticket, or removes it.
  function queue.insert(entry)
    store.write('ZADD', QUEUE, queue.score(entry.priority, entry.start), member_of(entry))
    state.size = state.size + 1
    count(entry.priority, 1)
    front, at, part = {}, 1, 1
  end

  function queue.remove(entry)
    store.write('ZREM', QUEUE, member_of(entry))
    state.size = state.size - 1
    count(entry.priority, -1)
    front, at, part = {}, 1, 1
  end

  -- P23 (operators): a waiting ticket of the sender gets another priority. Returns false if it was not there.
  function queue.move(entry, moved)
    local entered
    if rules.fair then
      if not fair.leave(entry, false) then return false end
      entered = fair.enter(moved, 0, state.last)
    else
      write_all()
      if store.write('ZREM', QUEUE, member_of(entry)) == 0 then return false end
      count(entry.priority, -1)
      entered = store.write('ZADD', QUEUE, queue.score(moved.priority, moved.arrival), member_of(moved)) > 0
      if entered then count(moved.priority, 1) else state.size = state.size - 1 end
    end
    if not entered then step.own.waiting = step.own.waiting - 1 end
    return true
  end

  -- How many tickets are ahead of a ticket that comes now; with fair shares, how many are surely ahead.
  function queue.ahead_of_new(priority, tenant)
    -- Tickets that join now get higher numbers. With fair shares they may still be granted before tickets of other tenants of their priority.
    local by_tags = rules.fair and rules.aging == 0
    local score = by_tags and priority - 1 or queue.score(priority, state.last)
    write_all()
    if group.nothing_waits() then return 0 end
    local ahead = call('ZCOUNT', QUEUE, '-inf', score)
    return by_tags and ahead + fair.behind_better_than(priority) + fair.waiting({ priority = priority, tenant = tenant }) or ahead
  end

  -- How many tickets are ahead of a waiting ticket of the sender; with fair shares, those of better priorities. nil: it does not wait.
  function queue.ahead_of(entry)
    local ahead
    if not rules.fair then
      write_all()
      ahead = call('ZRANK', QUEUE, member_of(entry))
    elseif fair.contains(entry) then
      ahead = rules.aging == 0 and call('ZCOUNT', QUEUE, '-inf', entry.priority - 1) + fair.behind_better_than(entry.priority) or 0
    end
    return ahead and max(ahead - state.orphans, 0) or nil
  end

  -- Pending entries may be in the queue already, so they are written where they could fill it.
  function queue.is_full(most)
    if group.depth() + #pending >= most then queue.write_pending() end
    return group.depth() >= most
  end

  -- The entry's session has ended or is unresponsive.
  local function is_orphaned(entry)
    local owner = sessions.known[entry.session] or sessions:get(entry.session)
    return not owner or owner.unresponsive
  end
  queue.is_orphaned = is_orphaned

  -- Reads the sessions of these entries, and their tenant queues.
  local function with_sessions(entries)
    local owners = {}
    for i, entry in ipairs(entries) do owners[i] = entry.session end
    sessions:fetch(owners)
    if rules.fair then fair.fetch(entries) end
    return entries
  end

  -- Queue entries in order, by rank.
  local function read(from, to)
    local found, entries = call('ZRANGE', QUEUE, from, to, 'WITHSCORES'), {}
    for i = 1, #found, 2 do entries[#entries + 1] = entry_of(found[i], found[i + 1]) end
    return with_sessions(entries)
  end

  -- Removes the entry of another ticket from a full queue.
  function queue.displace(entry)
    if rules.fair then
      fair.leave(entry, false)
    else
      store.write('ZREM', QUEUE, entry.member)
      state.size = state.size - 1
      count(entry.priority, -1)
    end
    queue.count_left(entry)
  end

  -- An entry has left: its session has one ticket less.
  function queue.count_left(entry)
    if entry.session == step.id then
      step.own.waiting = step.own.waiting - 1
      return
    end
    local owner = sessions:get(entry.session)
    owner.waiting = owner.waiting - 1
    sessions:put(entry.session, owner)
  end

  local function may_drop()
    if step.dropped == MAX_ORPHANS then step.more = true end
    return step.dropped < MAX_ORPHANS
  end

  -- The last entry that is not orphaned. Orphaned entries behind it are dropped. nil: there are more of them than one step drops (P16).
  local function last()
    write_all()
    while true do
      local from = max(state.size - (state.orphans > 0 and MAX_SWEEP or 1), 0)
      local entries = read(from, state.size - 1)
      local keep = #entries
      -- Somebody has deleted the queue; the next heartbeat finds that.
      if keep == 0 then return nil end
      while keep > 0 and is_orphaned(entries[keep]) and may_drop() do
        keep, step.dropped = keep - 1, step.dropped + 1
      end
      local orphans = #entries - keep
      if orphans > 0 then
        store.write('ZREMRANGEBYRANK', QUEUE, from + keep, from + #entries - 1)
        for i = keep + 1, #entries do count(entries[i].priority, -1) end
        state.orphans, state.size = state.orphans - orphans, state.size - orphans
      end
      if keep > 0 then return not is_orphaned(entries[keep]) and entries[keep] or nil end
    end
  end

  -- Which ticket a full queue refuses when another one joins. REFUSE: the one that joins is the worst. An entry: it is displaced; it is the last one, or with fair shares
  -- the newest of the longest tenant queue of the worst priority. nil: more orphaned entries are behind than one step drops, so the ticket enters above the cap.
  function queue.overflow(entry)
    if not rules.fair then
      local worst, score = last(), queue.score(entry.priority, entry.arrival)
      local better = worst and (score < worst.score or (score == worst.score and not store.before(worst.member, member_of(entry))))
      return better and worst or worst and queue.REFUSE
    end
    while true do
      local longest, own = fair.longest(entry)
      local newest = fair.newest(longest)
      if not newest then return queue.REFUSE end
      with_sessions({ newest })
      if not is_orphaned(newest) then return (not own or newest.arrival >= entry.arrival) and newest or queue.REFUSE end
      if not may_drop() then return nil end
      step.dropped = step.dropped + 1
      fair.leave(newest, false)
      state.orphans = state.orphans - 1
    end
  end

  function queue.save()
    queue.write_pending()
    if unstored then return store_front() end
    if taken > 0 then store.write('ZREMRANGEBYRANK', QUEUE, 0, taken - 1) end
    front, at, taken = {}, 1, 0
  end

  function queue.first()
    if not front[at] and state.size > 0 then
      queue.save()
      front = read(0, min(part, state.size) - 1)
      part = min(part * 4, 128)
    end
    return front[at]
  end

  -- Some entries in order, and then tickets behind the first of their tenant queue.
  function queue.part(from, most)
    queue.save()
    local entries = {}
    if from < state.size and most > 0 then entries = read(from, min(from + most, state.size) - 1) end
    local behind = rules.fair and with_sessions(fair.behind(max(from - state.size, 0), most - #entries)) or {}
    for _, entry in ipairs(behind) do entries[#entries + 1] = entry end
    return entries
  end

  -- Removes the first entry; `granted`: its ticket is granted.
  function queue.take_first(granted)
    if rules.fair then
      fair.leave(front[at], granted)
      return
    end
    count(front[at].priority, -1)
    at, state.size = at + 1, state.size - 1
    if not unstored then taken = taken + 1 end
  end

  -- The first entry that is not orphaned. Orphaned entries before it are dropped, at most MAX_ORPHANS in one step (P16).
  function queue.head()
    while true do
      local entry = queue.first()
      if not entry or not is_orphaned(entry) then return entry end
      if not may_drop() then return nil end
      step.dropped = step.dropped + 1
      queue.take_first(false)
      state.orphans = state.orphans - 1
    end
  end

  -- Drops the orphaned entries among these. Returns where the next sweep begins.
  local function sweep_these(entries, from, most)
    local orphans, members = 0, {}
    for _, entry in ipairs(entries) do
      if is_orphaned(entry) then
        orphans = orphans + 1
        if rules.fair then
          fair.leave(entry, false)
        else
          members[orphans] = entry.member
          count(entry.priority, -1)
        end
      end
    end
    state.size = state.size - store.write_all('ZREM', QUEUE, members)
    state.orphans = state.orphans - orphans
    step.dropped = step.dropped + orphans
    return #entries < most and 0 or from + most - orphans
  end

  -- Drops orphaned entries among some of the queue, and with fair shares among as many tickets behind the first of their tenant queue: behind better tickets they would
  -- never become the head.
  function queue.sweep()
    if state.orphans == 0 then
      state.sweep, state.sweep_behind = 0, 0
      return
    end
    queue.save()
    part = 1
    -- No more entries than may be dropped.
    local function most() return min(MAX_SWEEP, MAX_ORPHANS - step.dropped) end
    local entries, room = {}, most()
    if room > 0 and state.sweep < state.size then entries = read(state.sweep, min(state.sweep + room, state.size) - 1) end
    state.sweep = sweep_these(entries, state.sweep, room)
    room = most()
    if rules.fair then state.sweep_behind = sweep_these(with_sessions(fair.behind(state.sweep_behind, room)), state.sweep_behind, room) end
  end

  return function()
    pending, pending_command, unstored = {}, nil, false
    front, at, taken, part = {}, 1, 0, 1
  end
end)
