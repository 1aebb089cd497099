"""What columns and event types are called in four domains; what a schema is guessed from.

Names are written without case, spaces and signs (`names.plain`), the surest first. A further domain is one more entry.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from desireline.schema.model import Role
from desireline.schema.names import plain


@dataclass(frozen=True)
class Preset:
    """One domain's words.

    Parameters
    ----------
    columns
        Names by what they mean: user, session, time, position, event, item, value, quantity, event_id, rating, text.
    marks
        Columns that tell this domain from the others.
    constant
        The event type of a log that names none.
    session_gap_s
        A longer silence starts a new session, in seconds.
    """

    columns: Mapping[str, tuple[str, ...]]
    marks: tuple[str, ...]
    constant: str
    session_gap_s: float


@dataclass(frozen=True)
class EventWord:
    """Names of one event type, and the roles that it plays."""

    names: tuple[str, ...]
    roles: tuple[Role, ...]


def _n(names: str) -> tuple[str, ...]:
    return tuple(names.split())


_WANTED: tuple[Role, ...] = ("target", "positive")

ORDER_WORDS = _n(
    "purchase buy bought order transaction sale payment pay conversion subscribe renew 购买 下单 支付 成交 订购"
)
REVIEW_WORDS = _n("review rate rating feedback 评价 评分 点评")
RATING_WORDS = _n("rating stars star score overall 评分 星级")

# In the order in which they happen: at equal times a view comes before its purchase, a purchase before its return.
EVENT_WORDS = (
    EventWord(_n("login signin logon logout signout register signup 登录 登陆 注册 退出"), ()),
    EventWord(_n("sessionstart start open appopen heartbeat ping error search 搜索"), ()),
    EventWord(_n("impression exposure shown show 曝光"), ()),
    EventWord(_n("view pv pageview productview itemview detail browse visit 浏览 查看 访问"), _WANTED),
    EventWord(_n("click clicked tap 点击"), _WANTED),
    EventWord(_n("play watch listen read stream 观看 播放 阅读"), _WANTED),
    EventWord(_n("fav favorite favourite wishlist addtowishlist like save collect 收藏 喜欢"), _WANTED),
    EventWord(_n("share comment follow 分享 评论 关注"), _WANTED),
    EventWord(_n("cart addtocart add2cart addcart basket addtobasket 加购 加购物车 加入购物车"), _WANTED),
    EventWord(_n("removefromcart removecart removefrombasket 移出购物车"), ("negative",)),
    EventWord(_n("checkout begincheckout 结算"), _WANTED),
    EventWord(ORDER_WORDS, _WANTED),
    EventWord(_n("deposit withdrawal withdraw transfer cashin cashout debit credit"), _WANTED),
    EventWord(_n("存款 取款 转账 消费 充值"), _WANTED),
    EventWord(_n("admission admit appointment encounter diagnosis prescription medication"), _WANTED),
    EventWord(_n("lab procedure observation measurement discharge 就诊 诊断 处方 检查 入院"), _WANTED),
    EventWord(_n("enroll enrol attempt answer submit submission correct complete hint"), _WANTED),
    EventWord(_n("报名 答题 作答 提交 完成 学习"), _WANTED),
    EventWord(REVIEW_WORDS, _WANTED),
    EventWord(_n("cancel cancelled canceled cancellation unsubscribe cancelorder 取消 取消订单"), ("negative",)),
    EventWord(_n("return returned refund refunded chargeback dispute 退货 退款"), ("negative",)),
    EventWord(_n("dislike unlike unfollow uninstall block noshow incorrect wrong 不喜欢"), ("negative",)),
)


def event_word(name: str) -> tuple[int, tuple[Role, ...] | None]:
    """An event type's place in the usual order, and its roles; an unknown one stands last and has None."""
    for place, word in enumerate(EVENT_WORDS):
        if plain(name) in word.names:
            return place, word.roles
    return len(EVENT_WORDS), None


_COMMON: dict[str, tuple[str, ...]] = {
    "user": _n(
        """
        userid user uid customerid customer customerkey customernumber custid visitorid visitor clientid client
        memberid member buyerid buyer shopperid consumerid householdkey householdid personid person profileid
        subscriberid playerid viewerid reviewerid anonymousid cookieid cookie deviceid username accountid
        account subjectid entityid userpseudoid msisdn email 用户id 用户 用户编号 用户名 客户id 客户 客户编号
        会员id 会员 会员编号 顾客id 顾客 买家id 买家 访客id usuarioid idusuario usuario clienteid idcliente
        cliente kundenid kunde kundennummer benutzerid benutzer utilisateurid utilisateur idclient пользователь
        idпользователя клиент idклиента ユーザーid ユーザid ユーザー 顧客id 顧客 会員id 사용자id 사용자 고객id
        고객
        """
    ),
    "session": _n("sessionid session usersession visitid 会话id 会话"),
    "time": _n(
        """
        timestamp eventtimestamp eventtime datetime ts time createdat occurredat invoicedate orderdate
        purchasedate transactiondate transactiontime transdatetranstime eventdate orderedat purchasedat
        createtime createdtime creationtime updatedat clicktime visittime viewtime ordertime date when unixtime
        unixreviewtime timems timestampms epoch starttime startedat reviewtime dt day 时间戳 时间 日期时间
        事件时间 行为时间 下单时间 发生时间 创建时间 购买时间 交易时间 操作时间 订单时间 日期 下单日期 fecha
        fechahora hora datum zeitstempel zeit uhrzeit horodatage dateheure data время дата タイムスタンプ 日時
        時間 時刻 日付 시간 일시 날짜
        """
    ),
    "position": _n(
        """
        position pos step seq sequence sequenceid eventindex seqno turn rank 序号 位置 次序 顺序
        """
    ),
    "event": _n(
        """
        eventtype event behavior behaviour behaviortype behaviourtype action actiontype eventname
        interactiontype interaction activitytype activity usereventtype eventaction transactiontype verb type
        行为类型 行为 事件类型 事件 操作类型 操作 动作 动作类型 交易类型 用户行为 evento tipoevento accion
        ereignis ereignistyp aktion evenement событие действие 行動 イベント アクション 이벤트 행동
        """
    ),
    "item": _n(
        """
        itemid item productid product sku skuid stockcode articleid article asin goodsid goods productcode
        itemcode productsku productkey itemkey itemnumber upc ean isbn movieid movie songid song trackid track
        artistid artist videoid video newsid contentid content bookid book gameid game recipeid listingid
        offerid adid postid pageid businessid venueid poi hotelid hotel restaurantid restaurant streamid url
        page productname itemname 商品id 商品 商品编号 商品编码 物品id 物品 产品id 产品 产品编号 货号 项目id
        项目 视频id 内容id productoid producto idproducto articulo produkt produktid artikel artikelnummer
        produit produitid idproduit produto товар idтовара продукт アイテムid アイテム 商品コード 상품id 상품
        아이템
        """
    ),
    "value": _n(
        """
        amount amt totalamount total totalprice linetotal revenue salesvalue sales sale dollars price unitprice
        itemprice saleprice value eventvalue spend spent payment cost money sum transactionamount valuenum
        numericvalue purchaseamount orderamount gmv 金额 总金额 订单金额 交易金额 支付金额 总价 价格 单价
        商品单价 消费金额 importe precio betrag preis montant prix valor preco сумма цена 金額 価格 금액 가격
        """
    ),
    "quantity": _n("quantity qty units itemquantity orderquantity 数量 购买数量 cantidad menge quantite"),
    "price": _n("unitprice price itemprice saleprice 单价 商品单价 价格 precio preis prix"),
    "event_id": _n(
        "eventid eventuuid uuid guid logid messageid transactionid interactionid 事件id 流水号 日志id 交易流水号 交易id"
    ),
    "rating": _n("rating stars ratings overall reviewrating 评分 星级"),
    "text": _n("review reviewtext text comment body message feedback 评论 评论内容 内容 点评"),
    "click": _n("click clicked isclick isclicked 点击"),
}


def _columns(**first: str) -> dict[str, tuple[str, ...]]:
    """The common names, after those of one domain."""
    return {key: tuple(dict.fromkeys(_n(first.get(key, "")) + names)) for key, names in _COMMON.items()}


PRESETS: dict[str, Preset] = {
    "retail": Preset(
        _columns(),
        marks=_n("sku stockcode invoice invoiceno quantity price unitprice cart productid 商品id"),
        constant="purchase",
        session_gap_s=1_800.0,
    ),
    "finance": Preset(
        _columns(
            user="accountid account accountnumber iban cardid cardnumber ccnum card nameorig 账户 账号 卡号 账户id",
            event="transactiontype txntype 交易类型",
            item="""
                merchantid merchant merchantname counterparty beneficiary mcc namedest payee instrument ticker
                symbol 商户 商户id 对方账户
                """,
        ),
        marks=_n(
            """
            accountid account accountnumber iban ccnum cardnumber merchant merchantid mcc balance amt txnid nameorig
            namedest oldbalanceorg 账户 账号 卡号 商户
            """
        ),
        constant="transaction",
        session_gap_s=86_400.0,
    ),
    "health": Preset(
        _columns(
            user="patientid patient subjectid personid mrn patientkey 患者id 患者 病人id 病人 病历号",
            time="charttime admittime encounterdate visitdate servicedate 就诊时间 就诊日期 入院时间",
            event="encountertype visittype recordtype 就诊类型",
            item="""
                code conceptid icdcode icd diagnosis diagnosiscode drug drugcode medication atc loinc
                procedurecode drgcode 诊断 诊断编码 药品 药品编码
                """,
        ),
        marks=_n(
            "patientid patient subjectid mrn hadmid charttime icdcode diagnosis drug 患者id 患者 病人 病人id 诊断"
        ),
        constant="visit",
        session_gap_s=604_800.0,
    ),
    "education": Preset(
        _columns(
            user="studentid student pupilid pupil learnerid learner anonstudentid studid 学生id 学生 学号 学员id 学员",
            item="""
                problemid problem questionid question exerciseid exercise contentid itemid skillid skill
                skillname conceptid lessonid lesson courseid course 题目id 题目 知识点 课程id 课程
                """,
        ),
        marks=_n(
            """
            studentid student pupil pupilid learner learnerid skill skillid correct problemid questionid
            courseid 学生id 学生 学号 题目id 课程
            """
        ),
        constant="answer",
        session_gap_s=3_600.0,
    ),
}


def domain_of(names: list[str]) -> str:
    """The preset whose marks stand most often among columns' names; retail when none does."""
    seen = {plain(name) for name in names}
    return max(PRESETS, key=lambda name: (len(seen & set(PRESETS[name].marks)), name == "retail"))
