"""Texts of the demo in English and Chinese."""

LANGUAGES = ("en", "zh")

# Key: English, Chinese.
TEXTS = {
    # Page.
    "title": ("Generative models to play with", "生成模型演示"),
    "introduction": (
        "All models run on this machine. The first answer of a model takes a few seconds longer, "
        "since it is loaded and compiled.",
        "所有模型都在本机运行。每个模型的第一次回答要多等几秒，因为需要加载和编译。",
    ),
    "other_language": ("中文", "English"),
    # Controls of several tabs.
    "model": ("Model", "模型"),
    "digit": ("Digit", "数字"),
    "seed": ("Seed", "随机种子"),
    "temperature": ("Temperature", "温度"),
    "generate": ("Generate", "生成"),
    "another": ("Another", "换一个"),
    "clear": ("Clear", "清除"),
    # Latent plane.
    "latent_tab": ("Latent plane", "隐空间"),
    "latent_hint": (
        "Move the mouse, or a finger, over the plane: the decoder of the VAE computes the image of "
        "each point. The plane is spanned by the first two principal components of the encodings "
        "of test images, ±2.5 standard deviations wide.",
        "在平面上移动鼠标或手指：VAE 的解码器会计算每一点的图像。"
        "该平面由测试图像编码的前两个主成分张成，范围为 ±2.5 个标准差。",
    ),
    "plane": ("Plane", "平面"),
    "decoded": ("Decoded image", "解码图像"),
    "position": ("Position", "位置"),
    # GAN.
    "gan_tab": ("GAN", "GAN"),
    "gan_hint": (
        "The generator turns noise into images in a single step.",
        "生成器一步就把噪声变成图像。",
    ),
    "num_images": ("Number of images", "图像数量"),
    "images": ("Images", "图像"),
    # Diffusion.
    "diffusion_tab": ("Diffusion", "扩散模型"),
    "diffusion_hint": (
        "Each row is the path of one image from noise (left) to the result (right), with the "
        "number of denoising steps above.",
        "每一行是一幅图像从噪声（左）到结果（右）的过程，上方是去噪步数。",
    ),
    "guidance_scale": ("Guidance scale (1: none)", "引导强度（1 为无引导）"),
    "num_steps": ("Sampling steps", "采样步数"),
    "num_paths": ("Number of paths", "过程数量"),
    "path": ("Path from noise", "从噪声开始的过程"),
    # Words to image.
    "words_tab": ("Words", "文字生图"),
    "words_hint": (
        "A digit in words, with its thickness (thin, thick) and slant (upright, slanted, "
        "backslanted), each of which may be left out.",
        "用英文描述一个数字：粗细（thin 细、thick 粗）、倾斜（upright 直立、slanted 右倾、"
        "backslanted 左倾）和数字（zero 到 nine），粗细和倾斜可以省略。",
    ),
    "words": ("Prompt", "提示"),
    "default_words": ("a thick slanted seven", "a thick slanted seven"),
    # PixelCNN.
    "completion_tab": ("Completion", "补全数字"),
    "completion_hint": (
        "Draw the upper half of a digit, above the line. PixelCNN generates the lower half, pixel "
        "by pixel, several times.",
        "在横线上方画出一个数字的上半部分，PixelCNN 会逐像素生成下半部分，并给出多种结果。",
    ),
    "drawing": ("Drawing", "手绘"),
    "num_completions": ("Number of completions", "补全数量"),
    "completions": ("Completions", "补全结果"),
    # Classification of a digit.
    "digit_tab": ("Classifier", "识别数字"),
    "digit_hint": (
        "Draw a digit. The classifier returns the probability of each class while you draw.",
        "画一个数字，分类器会在绘制过程中给出每个类别的概率。",
    ),
    "probabilities": ("Probabilities", "概率"),
    # Text.
    "text_tab": ("Text", "文本"),
    "text_hint": (
        "The model continues the prompt, one token after another. It was trained on a few books, "
        "or on Tang poems (names with tang), so that it has their style and little sense.",
        "模型逐个词元地续写提示。它只在几本英文书或唐诗（名称含 tang）上训练，"
        "所以风格相似，但意思未必通顺。",
    ),
    "prompt": ("Prompt", "提示"),
    "new_tokens": ("New tokens", "新词元数"),
    "continuation": ("Text", "文本"),
    "default_prompt": ("In the beginning", "In the beginning"),
    "tang_prompt": ("明月", "明月"),
    # Tunes.
    "music_tab": ("Tunes", "乐曲"),
    "music_hint": (
        "An LSTM writes an Irish tune in ABC notation, character by character. Then it is played, "
        "and its notes are plotted.",
        "LSTM 逐个字符地用 ABC 记谱法写出一首爱尔兰乐曲，然后演奏并画出音符。",
    ),
    "meter": ("Meter", "拍号"),
    "key": ("Key", "调"),
    "tune": ("Tune in ABC notation", "ABC 记谱法的乐曲"),
    "sound": ("Sound", "声音"),
    "notes": ("Notes", "音符"),
    # Translation.
    "translation_tab": ("Translation", "翻译"),
    "translation_hint": (
        "From English to Chinese. The models were trained on messages of computer programs: other "
        "sentences are translated badly. The picture has the attention to each English token "
        "(column) while each Chinese token (row) is predicted.",
        "从英文到中文。模型只在计算机程序的文字上训练，其他句子译得不好。"
        "图中是预测每个中文词元（行）时对每个英文词元（列）的注意力。",
    ),
    "sentence": ("English sentence", "英文句子"),
    "default_sentence": (
        "Opens a dialog where you can select the file.",
        "Opens a dialog where you can select the file.",
    ),
    "translate": ("Translate", "翻译"),
    "translation": ("Chinese translation", "中文译文"),
    "attention": ("Attention", "注意力"),
    "no_attention": (
        "This model has no attention: the decoder has one vector for the whole sentence.",
        "该模型没有注意力：解码器只有代表整个句子的一个向量。",
    ),
    # Classification of a text.
    "author_tab": ("Books", "哪本书？"),
    "author_hint": (
        "A Transformer predicts the book that a passage is from. The color of a token is its "
        "importance: how much less likely the predicted book is without it (red), or more (blue).",
        "Transformer 预测一段英文出自哪本书。词元的颜色表示其重要性："
        "去掉它以后，预测的书的概率会降低（红色）还是升高（蓝色）。",
    ),
    "passage": ("English passage", "英文段落"),
    "default_passage": (
        "And the king said unto the people, Go ye into the land of thy fathers.",
        "And the king said unto the people, Go ye into the land of thy fathers.",
    ),
    "classify": ("Classify", "分类"),
    "importance": ("Importance of the tokens", "词元的重要性"),
    "alice_in_wonderland": ("Alice in Wonderland", "《爱丽丝梦游仙境》"),
    "as_you_like_it": ("As You Like It", "《皆大欢喜》"),
    "king_james": ("King James Bible", "《钦定版圣经》"),
    "paradise_lost": ("Paradise Lost", "《失乐园》"),
    # Forecast.
    "forecast_tab": ("Forecast", "预测"),
    "forecast_hint": (
        "An LSTM forecasts a year of the weekly CO2 at Mauna Loa from the five years before it. "
        "The weeks, counted from March 1958, are from the last tenth of the series, which it was "
        "not trained on.",
        "LSTM 根据之前五年的数据预测莫纳罗亚山一年的每周二氧化碳浓度。"
        "可选的周（从 1958 年 3 月算起）属于序列的最后十分之一，未用于训练。",
    ),
    "week": ("First week of the forecast", "预测的第一周"),
    "forecast": ("Forecast", "预测"),
    "error": ("Mean absolute error", "平均绝对误差"),
    "error_values": (
        "Forecast: {forecast:.2f} ppm. Last value, repeated: {repeated:.2f} ppm.",
        "预测：{forecast:.2f} ppm。重复最后一个值：{repeated:.2f} ppm。",
    ),
    # Sounds.
    "sound_tab": ("Sounds", "声音"),
    "sound_hint": (
        "WaveNet generates a percussive sound sample by sample, 8,000 in a second. The VAE "
        "generates the spectrogram of a second; its phases are estimated.",
        "WaveNet 逐个样本地生成打击乐声音，每秒 8,000 个样本；"
        "VAE 生成一秒的频谱图，相位由算法估计。",
    ),
    "sound_class": ("Kind of sound", "声音类别"),
    "drum": ("drum", "鼓"),
    "electronic": ("electronic", "电子"),
    "kick": ("kick", "底鼓"),
    "percussion": ("percussion", "打击乐"),
    "snare": ("snare", "军鼓"),
    "tabla": ("tabla", "塔布拉鼓"),
    "seconds": ("Seconds", "秒数"),
    "spectrogram": ("Waveform and spectrogram", "波形与频谱图"),
    # Messages.
    "error_whole_number": (
        "{name}: expected a whole number from {minimum} to {maximum}, got {value}.",
        "{name}：应为 {minimum} 到 {maximum} 的整数，实际为 {value}。",
    ),
    "error_number": (
        "{name}: expected a number from {minimum} to {maximum}, got {value}.",
        "{name}：应为 {minimum} 到 {maximum} 的数，实际为 {value}。",
    ),
    "error_choice": (
        "{name}: expected one of the choices, got {value}.",
        "{name}：应为选项之一，实际为 {value}。",
    ),
    "error_unused": (
        "{name}: the selected model has no such setting, got {value}.",
        "{name}：所选模型没有这项设置，实际为 {value}。",
    ),
    "error_blank": ("{name}: expected some input, got none.", "{name}：不能为空。"),
    "error_long": (
        "{name}: expected at most {maximum} characters, got {length}.",
        "{name}：最多 {maximum} 个字符，实际为 {length} 个。",
    ),
    "error_tokens": (
        "{name}: expected at most {maximum} tokens, as many as the model can take, got {length}.",
        "{name}：模型最多接受 {maximum} 个词元，实际为 {length} 个。",
    ),
    "error_no_words": (
        "{name}: expected words that the model has, got none.",
        "{name}：没有模型认识的词。",
    ),
    "error_characters": (
        "{name}: expected characters that the model has, got {characters}",
        "{name}：含有模型没有的字符：{characters}",
    ),
    "error_words": (
        "Prompt: expected 1 to {maximum} of these words: {vocabulary}.",
        "提示：应由以下 1 到 {maximum} 个词组成：{vocabulary}。",
    ),
    "error_drawing": (
        "{name}: expected 28 × 28 numbers from 0 to 255.",
        "{name}：应为 28 × 28 个 0 到 255 的数。",
    ),
    "error_empty_drawing": (
        "Drawing: expected a digit, got an almost empty drawing.",
        "手绘：请先画一个数字，现在几乎是空白的。",
    ),
    "error_empty_half": (
        "Drawing: expected the upper half of a digit, above the line, got almost nothing there.",
        "手绘：请在横线上方画出数字的上半部分，现在那里几乎是空白的。",
    ),
    "error_tune": (
        "This tune cannot be played: its text is not valid ABC notation. Please try another seed.",
        "这首乐曲无法演奏：文本不是有效的 ABC 记谱法。请换一个随机种子。",
    ),
    "error_unexpected": ("The model failed: {error}", "模型出错：{error}"),
}

# Texts of figures: English, Chinese.
FIGURE_TEXTS = {
    "source token": "源词元",
    "target token": "目标词元",
    "attention weight": "注意力权重",
    "observed": "观测值",
    "forecast": "预测",
    "week": "周",
    "CO2 (ppm)": "CO2（ppm）",
    "quarter notes": "四分音符",
    "amplitude": "振幅",
    "frequency": "频率",
    "seconds": "秒",
    "dB of full scale": "满量程分贝",
}


def text(language: str, key: str, **values) -> str:
    """Return a text of the page.

    Args:
        language: String. One of `LANGUAGES`.
        key: String. Key of `TEXTS`.
        **values: Values of its placeholders; a `name` is the key of another text.
    """
    column = LANGUAGES.index(language)
    if "name" in values:
        values["name"] = TEXTS[values["name"]][column]
    return TEXTS[key][column].format(**values)
